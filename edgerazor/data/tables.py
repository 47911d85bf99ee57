"""Rows of a file in memory, with the columns that are needed and nothing else."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import pyarrow as pa

Row = dict[str, Any]


class Table(Protocol):
    """Rows of one file.

    Attributes:
        name: the file, for messages.
        names: all its columns.
    """

    @property
    def name(self) -> str: ...

    @property
    def names(self) -> tuple[str, ...]: ...

    def __len__(self) -> int: ...

    def rows(self, index: Iterable[int]) -> list[Row]:
        """The rows asked for, without the columns that hold nothing there."""
        ...

    def number(self, row: int) -> int:
        """What a person calls a row: counted from 1, in a file of lines by its lines."""
        ...


@dataclass(frozen=True)
class JsonTable:
    """Rows as JSON has them: for each of them what was there, no key of another row, no other type.

    Attributes:
        kept: the needed columns of each row, as `kept_row` makes them.
        numbers: of the rows in the file; None: 1, 2, 3.
    """

    name: str
    names: tuple[str, ...]
    kept: Sequence[Row | bytes]
    numbers: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.kept)

    def rows(self, index: Iterable[int]) -> list[Row]:
        return [json.loads(row) if isinstance(row, bytes) else dict(row) for row in map(self.kept.__getitem__, index)]

    def number(self, row: int) -> int:
        return row + 1 if self.numbers is None else int(self.numbers[row])


def kept_row(row: Row) -> Row | bytes:
    """A row in little memory: of text and numbers as it is, and where it holds lists or objects as JSON again.

    Raises:
        ValueError: it holds half of a surrogate pair, which is no character.
    """
    try:
        if any(isinstance(value, (dict, list)) for value in row.values()):
            return json.dumps(row, ensure_ascii=False).encode()
        for value in row.values():
            if isinstance(value, str) and not value.isascii():
                value.encode()
    except UnicodeEncodeError:
        raise ValueError("holds half of a surrogate pair, which is no character") from None
    return row


@dataclass(frozen=True)
class ArrowTable:
    """Rows of Arrow columns.

    Arrow gives every struct of a column the same keys, with null where a row had none; those are left out again.

    Attributes:
        table: the needed columns.
    """

    name: str
    names: tuple[str, ...]
    table: pa.Table

    def __len__(self) -> int:
        return int(self.table.num_rows)

    def rows(self, index: Iterable[int]) -> list[Row]:
        columns = list(zip(self.table.column_names, self.table.columns, strict=True))
        return [
            without_nulls({name: column[row].as_py(maps_as_pydicts="strict") for name, column in columns})
            for row in index
        ]

    def number(self, row: int) -> int:
        return row + 1

    def column(self, name: str) -> list[Any]:
        """All values of a column that was needed."""
        return list(self.table.column(name).to_pylist())

    def value(self, name: str, row: int) -> Any:
        """One value of a column that was needed; no other column is read."""
        return self.table.column(name)[row].as_py()


def without_nulls(value: Any) -> Any:
    """The value without keys that hold null, however deep."""
    if isinstance(value, dict):
        return {key: without_nulls(held) for key, held in value.items() if held is not None}
    return [without_nulls(held) for held in value] if isinstance(value, list) else value
