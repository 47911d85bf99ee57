"""A source as documents: which column, which form, which rows hold anything."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pyarrow.compute as pc
from datasets import Dataset, Value

from edgerazor.data.files import read_files
from edgerazor.errors import DataError
from edgerazor.schemas.base import nearest
from edgerazor.schemas.data import Source

Format = Literal["messages", "text"]
DEFAULT_FIELDS: tuple[Format, ...] = ("messages", "text")


@dataclass(frozen=True)
class Column:
    """One file's documents.

    Attributes:
        name: the file, for error messages.
        field: the column that was read.
        format: what a value is: a list of messages, or a string.
        rows: a dataset with this column alone.
    """

    name: str
    field: str
    format: Format
    rows: Dataset

    def where(self, row: int) -> str:
        """Name a row (counted from 0 here, from 1 for people)."""
        return f"{self.name}: row {row + 1}"


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

    def batches(self, documents: np.ndarray, size: int) -> Iterator[tuple[Column, np.ndarray, list[Any]]]:
        """Yield `(column, rows, values)` for the documents asked for, in that order; a batch lies in one column."""
        pairs = self.index[documents]
        changes = np.flatnonzero(np.diff(pairs[:, 0])) + 1
        for run in np.split(pairs, changes):
            column = self.columns[int(run[0, 0])] if len(run) else None
            for first in range(0, len(run), size):
                rows = run[first : first + size, 1]
                assert column is not None
                yield column, rows, column.rows[rows.tolist()][column.field]


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
    rows = dataset.select_columns([field])
    return Column(name, field, source.format or _format_of(name, field, rows), rows)


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
    if isinstance(value, str):
        return "text"
    if isinstance(value, list):
        return "messages"
    kind = "nothing" if value is None else f"{type(value).__name__} values"
    raise DataError(f"{name}: column '{field}' holds {kind}; expected text or lists of messages")


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
