"""Rows that cannot be used: counted, the first of them shown, refused all together or left out."""

import logging
from dataclasses import dataclass, field
from typing import Literal

from edgerazor.errors import DataError

SHOWN = 10
_LOG = logging.getLogger(__name__)


@dataclass
class BadRows:
    """Collects what is wrong with rows while others are read.

    Attributes:
        policy: refuse all of them at the end, or skip them.
        hint: how to leave them out, for people.
        count: how many there are.
        shown: what is said of the first ten.
    """

    policy: Literal["refuse", "skip"] = "refuse"
    hint: str = "data.on_bad_row: skip"
    count: int = 0
    shown: list[str] = field(default_factory=list)

    def add(self, error: DataError | str) -> None:
        """One more row; the message names file and row."""
        self.count += 1
        if len(self.shown) < SHOWN:
            self.shown.append(str(error))

    def settle(self) -> None:
        """Say how many there were, in the log if they are left out.

        Raises:
            DataError: they are refused.
        """
        if not self.count:
            return
        lines = [*self.shown, *([f"and {self.count - SHOWN} more"] if self.count > SHOWN else [])]
        rows = "1 row" if self.count == 1 else f"{self.count} rows"
        if self.policy == "refuse":
            hint = f"{rows} cannot be used; {self.hint} leaves such rows out"
            raise DataError("\n".join([*lines, hint]))
        _LOG.warning("%s left out (%s):\n%s", rows, self.hint, "\n".join(lines))
