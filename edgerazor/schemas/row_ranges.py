"""Lists of row numbers as a recipe writes them: `0-3, 17, 40-63`."""

import re
from collections.abc import Iterable, Sequence

_RANGE = re.compile(r"\s*(\d+)\s*(?:-\s*(\d+)\s*)?")


def parse_rows(text: str) -> tuple[int, ...]:
    """The rows that `text` lists, in ascending order.

    Args:
        text: numbers and inclusive ranges from 0, ascending, separated by commas; blanks do not matter.

    Raises:
        ValueError: something else is written, or rows come twice or out of order; the message says where.
    """
    rows: list[int] = []
    for part in text.split(","):
        found = _RANGE.fullmatch(part)
        if found is None:
            raise ValueError(f"'{part.strip()}' is neither a row such as 17 nor a range such as 0-3")
        first, last = int(found[1]), int(found[2] or found[1])
        if last < first:
            raise ValueError(f"'{part.strip()}' runs backwards; expected {last}-{first}")
        if rows and first <= rows[-1]:
            raise ValueError(
                f"'{part.strip()}' comes after row {rows[-1]}; expected every row once, in ascending order"
            )
        rows.extend(range(first, last + 1))
    return tuple(rows)


def format_rows(rows: Iterable[int]) -> str:
    """The shortest text that `parse_rows` reads as these rows; they must ascend."""
    runs: list[list[int]] = []
    for row in rows:
        if runs and row == runs[-1][-1] + 1:
            runs[-1][1:] = [row]
        else:
            runs.append([row])
    return ", ".join(_format_run(run) for run in runs)


def _format_run(run: Sequence[int]) -> str:
    return str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}"
