"""A source as documents: which column, which form, which rows hold anything."""

from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pyarrow.compute as pc
from datasets import Dataset, Value

from edgerazor.data.dialogue import Dialogue, read_dialogue
from edgerazor.data.files import read_files
from edgerazor.data.messages import SWITCHES, UNKNOWN_SWITCHES, parse_json
from edgerazor.errors import DataError
from edgerazor.schemas.base import nearest
from edgerazor.schemas.data import Source

Row = dict[str, Any]
Format = Literal["messages", "text"]
DEFAULT_FIELDS: tuple[Format, ...] = ("messages", "text")
BESIDE = ("tools", "system", *SWITCHES, *UNKNOWN_SWITCHES)
"""Columns that are read beside the messages or the text."""


@dataclass(frozen=True)
class Column:
    """One file's documents.

    Attributes:
        name: the file, for error messages.
        field: the column that was read.
        format: what a value is: a list of messages (or JSON of one), or a string.
        rows: a dataset with this column and those of `BESIDE`.
        ignore: columns and keys of messages that mean nothing.
    """

    name: str
    field: str
    format: Format
    rows: Dataset
    ignore: tuple[str, ...] = ()

    def where(self, row: int) -> str:
        """Name a row (counted from 0 here, from 1 for people)."""
        return f"{self.name}: row {row + 1}"

    def dialogue(self, row: Row, where: str, *, known: Container[str] = ()) -> Dialogue:
        """The dialogue that a row holds; see `read_dialogue`."""
        return read_dialogue(row, self.field, where, ignore=self.ignore, known=known)


@dataclass(frozen=True)
class Documents:
    """The documents of one source that hold any text, in the order of the files.

    Attributes:
        path: as the recipe has it.
        columns: the files.
        index: int64 `[documents, 2]`: column and row of each document.
        empty: rows left out because their text is empty.
    """

    path: str
    columns: tuple[Column, ...]
    index: np.ndarray
    empty: int

    def __len__(self) -> int:
        return len(self.index)

    def batches(self, documents: np.ndarray, size: int) -> Iterator[tuple[Column, np.ndarray, list[Row]]]:
        """Yield `(column, numbers, rows)` for the documents asked for, in that order; a batch lies in one column."""
        pairs = self.index[documents]
        changes = np.flatnonzero(np.diff(pairs[:, 0])) + 1
        for run in np.split(pairs, changes):
            column = self.columns[int(run[0, 0])] if len(run) else None
            for first in range(0, len(run), size):
                rows = run[first : first + size, 1]
                assert column is not None
                values = column.rows[rows.tolist()]
                yield (
                    column,
                    rows,
                    [without_nulls(dict(zip(values, row, strict=True))) for row in zip(*values.values(), strict=True)],
                )


def without_nulls(value: Any) -> Any:
    """Without the keys that Arrow adds where other rows have them; it gives every struct of a column the same ones."""
    if isinstance(value, dict):
        return {key: without_nulls(held) for key, held in value.items() if held is not None}
    return [without_nulls(held) for held in value] if isinstance(value, list) else value


def load_documents(source: Source) -> Documents:
    """Read a source and find its documents.

    Raises:
        DataError: it cannot be read, the column is missing or of another form, or no row holds any text.
    """
    columns = tuple(_column(name, rows, source) for name, rows in read_files(source))
    found, empty = [], 0
    for position, column in enumerate(columns):
        rows = _rows_with_text(column)
        empty += len(column.rows) - len(rows)
        found.append(np.stack([np.full(len(rows), position), rows], axis=1))
    index = np.concatenate(found).astype(np.int64)
    if not len(index):
        raise DataError(f"{source.path}: no row holds any text")
    return Documents(source.path, columns, index, empty)


def _column(name: str, dataset: Dataset, source: Source) -> Column:
    names = dataset.column_names
    field = source.field or source.format or _default_field(name, names)
    if field not in names:
        raise DataError(f"{name}: no column '{field}'{nearest(field, names)}")
    rows = dataset.select_columns([field, *(beside for beside in BESIDE if beside in names and beside != field)])
    return Column(name, field, source.format or _format_of(name, field, rows), rows, source.ignore)


def _default_field(name: str, names: Sequence[str]) -> str:
    present = [field for field in DEFAULT_FIELDS if field in names]
    if len(present) == 1:
        return present[0]
    columns = ", ".join(f"'{column}'" for column in names) or "none"
    if present:
        raise DataError(f"{name}: has both a column 'messages' and a column 'text'; name one with `field`")
    raise DataError(f"{name}: no column 'messages' or 'text'; name one with `field` (columns: {columns})")


def _format_of(name: str, field: str, rows: Dataset) -> Format:
    value = next((value for value in rows[field] if value is not None), None)
    parsed = parse_json(value)
    if isinstance(value, str) and not (field == "messages" or _is_dialogue(parsed)):
        return "text"
    if isinstance(value, (str, list)):
        return "messages"
    kind = "nothing" if value is None else f"{type(value).__name__} values"
    raise DataError(f"{name}: column '{field}' holds {kind}; expected text or lists of messages")


def _is_dialogue(value: Any) -> bool:
    return (
        isinstance(value, list)
        and bool(value)
        and all(isinstance(message, dict) and {"role", "from"} & message.keys() for message in value)
    )


def _rows_with_text(column: Column) -> np.ndarray:
    if column.format == "messages":
        return np.arange(len(column.rows))
    if column.rows.features[column.field] not in (Value("string"), Value("large_string")):
        for row, value in enumerate(column.rows[column.field]):
            if not isinstance(value, str):
                kind = "nothing" if value is None else type(value).__name__
                raise DataError(f"{column.where(row)}: column '{column.field}' holds {kind}; expected text")
        return np.flatnonzero([bool(value.strip()) for value in column.rows[column.field]])
    values = column.rows.with_format("arrow")[:].column(column.field)
    if values.null_count:
        row = pc.index(pc.is_null(values), True).as_py()
        raise DataError(f"{column.where(row)}: column '{column.field}' is null; expected text")
    lengths = pc.utf8_length(pc.utf8_trim_whitespace(values))
    return np.flatnonzero(pc.greater(lengths, 0).to_numpy())
