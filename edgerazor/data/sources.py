"""A source as documents: which columns, which form, which rows hold anything."""

from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from edgerazor.data.bad_rows import BadRows
from edgerazor.data.dialogue import Dialogue, read_dialogue
from edgerazor.data.files import read_files
from edgerazor.data.messages import SWITCHES, UNKNOWN_SWITCHES, parse_json
from edgerazor.data.tables import Row, Table
from edgerazor.errors import DataError
from edgerazor.schemas.base import nearest
from edgerazor.schemas.data import Source

Format = Literal["messages", "text"]
FIELDS = ("messages", "conversations", "text")
PAIRS = {"prompt": ("response", "completion"), "question": ("answer",)}
"""Columns of a question with those that may hold its answer."""
BESIDE = ("tools", "system", *SWITCHES, *UNKNOWN_SWITCHES)
"""Columns that are read beside the messages or the text."""
_AT_A_TIME = 1024


@dataclass(frozen=True)
class Column:
    """One file's documents.

    Attributes:
        name: the file, for error messages.
        field: the column that was read.
        response: the column with the answers to it; None: it holds all.
        format: what a value is: a list of messages (or JSON of one), or a string.
        table: the rows, with the needed columns.
        ignore: columns and keys of messages that mean nothing.
    """

    name: str
    field: str
    response: str | None
    format: Format
    table: Table
    ignore: tuple[str, ...] = ()

    def where(self, row: int) -> str:
        """Name a row for people."""
        return f"{self.name}: row {self.table.number(row)}"

    def dialogue(self, row: Row, where: str, *, known: Container[str] = ()) -> Dialogue:
        """The dialogue that a row holds; see `read_dialogue`."""
        return read_dialogue(row, self.field, where, response=self.response, ignore=self.ignore, known=known)


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
                yield column, rows, column.table.rows(rows.tolist())


def load_documents(source: Source, bad: BadRows) -> Documents:
    """Read a source and find its documents.

    Args:
        bad: collects rows that cannot be used; they are no documents.

    Raises:
        DataError: it cannot be read, the column is missing or of another form, or no row holds any text.
    """
    named = {name for name in (source.field or source.format, source.response) if name is not None}
    needed = named or {*FIELDS, *PAIRS, *(answer for answers in PAIRS.values() for answer in answers)}
    bad_before = bad.count
    tables = read_files(source, needed | ({*BESIDE} - {*source.ignore}), bad)
    columns = tuple(_column(table, source) for table in tables if len(table))
    found, empty = [np.empty((0, 2), dtype=np.int64)], 0
    for position, column in enumerate(columns):
        rows, without = _rows_with_text(column, bad)
        empty += without
        found.append(np.stack([np.full(len(rows), position), rows], axis=1))
    index = np.concatenate(found).astype(np.int64)
    if not len(index) and bad.count == bad_before:
        raise DataError(f"{source.path}: no row holds any text")
    return Documents(source.path, columns, index, empty)


def _column(table: Table, source: Source) -> Column:
    field, response = source.field or source.format, source.response
    if field is None:
        field, found = _default_field(table)
        response = response or found
    for column in (field, response):
        if column is not None and column not in table.names:
            raise DataError(f"{table.name}: no column '{column}'{nearest(column, table.names)}")
    form = source.format or ("messages" if response else _format_of(table, field))
    return Column(table.name, field, response, form, table, source.ignore)


def _default_field(table: Table) -> tuple[str, str | None]:
    """The column that is read, and the one with the answers to it."""
    present = [field for field in FIELDS if field in table.names]
    pairs = [(prompt, answer) for prompt in PAIRS for answer in PAIRS[prompt] if {prompt, answer} <= {*table.names}]
    if len(present) == 1:
        return present[0], None
    if not present and len(pairs) == 1:
        return pairs[0]
    columns = ", ".join(f"'{column}'" for column in table.names) or "none"
    if len(present) > 1:
        several = ", ".join(f"'{field}'" for field in present)
        raise DataError(f"{table.name}: has the columns {several}; name one with `field`")
    if pairs:
        several = ", ".join(f"'{prompt}' with '{answer}'" for prompt, answer in pairs)
        raise DataError(f"{table.name}: has the columns {several}; name one of each with `field` and `response`")
    raise DataError(
        f"{table.name}: no column 'messages' or 'text'; name one with `field` (columns: {columns}), and one of "
        "answers with `response`"
    )


def _format_of(table: Table, field: str) -> Format:
    rows = (row for first in range(0, len(table), _AT_A_TIME) for row in table.rows(_chunk(table, first)))
    value = next((row[field] for row in rows if row.get(field) is not None), None)
    if isinstance(value, str) and not (field in ("messages", "conversations") or _is_dialogue(parse_json(value))):
        return "text"
    if isinstance(value, (str, list)):
        return "messages"
    kind = "nothing" if value is None else f"{type(value).__name__} values"
    raise DataError(f"{table.name}: column '{field}' holds {kind}; expected text or lists of messages")


def _is_dialogue(value: Any) -> bool:
    return (
        isinstance(value, list)
        and bool(value)
        and all(isinstance(message, dict) and {"role", "from"} & message.keys() for message in value)
    )


def _chunk(table: Table, first: int) -> range:
    return range(first, min(first + _AT_A_TIME, len(table)))


def _rows_with_text(column: Column, bad: BadRows) -> tuple[Sequence[int], int]:
    """Rows that are documents, and how many are left out because they are empty."""
    if column.format == "messages":
        return range(len(column.table)), 0
    kept, empty = [], 0
    for first in range(0, len(column.table), _AT_A_TIME):
        chunk = _chunk(column.table, first)
        for number, row in zip(chunk, column.table.rows(chunk), strict=True):
            value = row.get(column.field)
            if isinstance(value, str):
                kept += [number] if value.strip() else []
                empty += not value.strip()
            else:
                holds = "is null" if value is None else f"holds {type(value).__name__}"
                bad.add(f"{column.where(number)}: column '{column.field}' {holds}; expected text")
    return kept, empty
