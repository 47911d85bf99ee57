"""JSON lines, JSON, CSV and plain text as rows: the needed columns only, so that others may hold anything."""

import csv
import gzip
import io
import json
import sys
import zlib
from collections.abc import Callable, Container, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np
import pyarrow as pa

from edgerazor.data.bad_rows import BadRows
from edgerazor.data.tables import JsonTable, Row, kept_row
from edgerazor.errors import DataError

NumberedRow = tuple[int, Any]
_MARK = b"\xef\xbb\xbf"


def read_json_lines(file: Path, needed: Container[str], bad: BadRows) -> JsonTable:
    """A JSON object a line; a line that is none is a bad row, one without anything no row."""
    return _collect(file, _json_lines, needed, bad)


def read_json(file: Path, needed: Container[str], bad: BadRows) -> JsonTable:
    """A list of objects, an object that holds one, or JSON lines under another name."""
    return _collect(file, _json_list, needed, bad)


def read_csv(file: Path, needed: Container[str], bad: BadRows) -> JsonTable:
    """Comma-separated values; the first row names the columns, and an empty value is none."""
    return _collect(file, _csv_rows, needed, bad)


def read_text(file: Path, needed: Container[str], bad: BadRows) -> JsonTable:
    """The whole file as one row, in column `text`."""
    return _collect(file, _whole_text, needed, bad)


def _collect(
    file: Path, read: Callable[[Path, BinaryIO], Iterator[NumberedRow]], needed: Container[str], bad: BadRows
) -> JsonTable:
    names: dict[str, None] = {}
    kept, numbers, bad_before = [], [], bad.count
    with _opened(file) as stream:
        for number, row in read(file, stream):
            try:
                kept.append(_kept(row, names, needed))
            except ValueError as error:
                bad.add(f"{file}: row {number}: {error}")
                continue
            numbers.append(number)
    if not kept and bad.count == bad_before:
        raise DataError(f"{file}: holds no rows")
    return JsonTable(str(file), tuple(names), kept, np.array(numbers, dtype=np.int64))


def _kept(row: Any, names: dict[str, None], needed: Container[str]) -> Row | bytes:
    if isinstance(row, ValueError):
        raise row
    if not isinstance(row, dict):
        raise ValueError(f"is {type(row).__name__}; expected keys with values")
    names.update(dict.fromkeys(row))
    return kept_row({key: value for key, value in row.items() if key in needed})


def _json_lines(file: Path, stream: BinaryIO) -> Iterator[NumberedRow]:
    for number, line in enumerate(stream, start=1):
        text = line.removeprefix(_MARK) if number == 1 else line
        if not text.strip():
            continue
        try:
            yield number, json.loads(text)
        except (ValueError, RecursionError) as error:
            yield number, ValueError(f"is no JSON: {error}")


def _json_list(file: Path, stream: BinaryIO) -> Iterator[NumberedRow]:
    content = stream.read()
    try:
        value = json.loads(content.removeprefix(_MARK))
    except (ValueError, RecursionError) as error:
        if "Extra data" not in str(error):
            raise DataError(f"{file}: cannot be read as JSON: {error}") from error
        yield from _json_lines(file, io.BytesIO(content))
        return
    lists = [held for held in value.values() if isinstance(held, list)] if isinstance(value, dict) else [value]
    if len(lists) != 1 or not isinstance(lists[0], list):
        raise DataError(f"{file}: holds {type(value).__name__}; expected a list of rows")
    yield from enumerate(lists[0], start=1)


def _csv_rows(file: Path, stream: BinaryIO) -> Iterator[NumberedRow]:
    with _long_values():
        reader = csv.DictReader(io.TextIOWrapper(stream, encoding="utf-8-sig", newline=""), strict=True)
        try:
            for number, row in enumerate(reader, start=1):
                if None in row or None in row.values():
                    found = sum(value is not None for key, value in row.items() if key is not None)
                    yield number, ValueError(f"has {'more' if None in row else found} values; expected {len(row)}")
                else:
                    yield number, {key: value for key, value in row.items() if value != ""}
        except csv.Error as error:
            raise DataError(f"{file}: cannot be read as CSV: line {reader.line_num}: {error}") from error


def _whole_text(file: Path, stream: BinaryIO) -> Iterator[NumberedRow]:
    yield 1, {"text": io.TextIOWrapper(stream, encoding="utf-8").read()}


@contextmanager
def _opened(file: Path) -> Iterator[BinaryIO]:
    """The bytes of the file, decompressed by its last suffix.

    Raises:
        DataError: it cannot be read.
    """
    try:
        with file.open("rb") as plain:
            suffix = file.suffix.lower()
            if suffix == ".gz":
                with gzip.GzipFile(fileobj=plain) as stream:
                    yield cast(BinaryIO, stream)
            elif suffix == ".zst":
                yield cast(BinaryIO, io.BufferedReader(pa.CompressedInputStream(plain, "zstd")))
            else:
                yield plain
    except UnicodeDecodeError as error:
        raise DataError(f"{file}: cannot be read as UTF-8: {error}") from error
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{file}: cannot be read: {getattr(error, 'strerror', None) or error}") from error


@contextmanager
def _long_values() -> Iterator[None]:
    """The limit of the csv module, 128 KiB a value, is one of the process; it comes back."""
    before = csv.field_size_limit(sys.maxsize)
    try:
        yield
    finally:
        csv.field_size_limit(before)
