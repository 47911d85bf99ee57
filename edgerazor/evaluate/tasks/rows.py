"""Rows of a task, read from JSON lines in a user's folder."""

import gzip
import json
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from edgerazor.errors import DataError
from edgerazor.evaluate.tasks.catalog import TaskDefinition
from edgerazor.evaluate.tasks.keys import INDEX, INDICES, Key, check_keys
from edgerazor.schemas.messages import describe, nearest

SUFFIXES = (".jsonl", ".jsonl.gz")


def find_file(folder: Path, name: str) -> Path | None:
    """The file of a task's rows, NAME.jsonl or NAME.jsonl.gz; None if there is neither."""
    return next((path for suffix in SUFFIXES if (path := folder / f"{name}{suffix}").is_file()), None)


def missing_file(folder: Path, name: str) -> str:
    """What to say where `find_file` finds nothing.

    Raises:
        DataError: there is no such folder at all.
    """
    if not folder.is_dir():
        raise DataError(f"{folder}: there is no such folder; --data takes the one with the files of the tasks")
    there = [path.name for path in folder.iterdir() if path.name.endswith(SUFFIXES)]
    return f"{folder / name}.jsonl: there is no such file, nor one with .gz behind it{nearest(f'{name}.jsonl', there)}"


def read_rows(path: Path, task: TaskDefinition) -> list[dict[str, Any]]:
    """The rows of a file, each with the keys of the task alone.

    Args:
        path: JSON lines, gzip-compressed or not.
        task: says which keys.

    Raises:
        DataError: the file cannot be read, has no rows, or a row lacks a key or holds another type.
    """
    return read_checked(path, task.keys, lambda row, where: check_row(row, where, task))


def read_checked(
    path: Path, keys: Mapping[str, Key], check: Callable[[dict[str, Any], str], dict[str, Any]]
) -> list[dict[str, Any]]:
    """As `read_rows`, for rows of which `check` makes what is kept, by the row and its file and line.

    Raises:
        DataError: as `read_rows`, or `check` raises it.
    """
    opened = gzip.open if path.suffix == ".gz" else open
    try:
        with opened(path, "rt", encoding="utf-8") as lines:
            rows = [
                check(_read_row(line, f"{path}:{number}", keys), f"{path}:{number}") for number, line in _filled(lines)
            ]
    except (OSError, UnicodeDecodeError, EOFError, zlib.error) as error:
        raise DataError(f"{path}: cannot be read: {error}") from error
    if not rows:
        raise DataError(f"{path}: holds no rows; expected lines with {', '.join(keys)}")
    return rows


def _filled(lines: Any) -> Iterator[tuple[int, str]]:
    return ((number, line) for number, line in enumerate(lines, 1) if line.strip())


def _read_row(line: str, where: str, keys: Mapping[str, Key]) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{where}: is not valid JSON: {error}") from error
    if not isinstance(row, dict):
        raise DataError(f"{where}: expected an object with {', '.join(keys)}, got {describe(row)}")
    return row


def check_row(row: dict[str, Any], where: str, task: TaskDefinition) -> dict[str, Any]:
    """The keys of the task alone, if each is there and of its kind.

    Raises:
        DataError: it is not.
    """
    checked = check_keys(row, f"{where}: ", task.keys)
    for key, kind in task.keys.items():
        if kind is INDEX:
            count = task.options or len(row["choices"])
            if not 0 <= row[key] < count:
                raise DataError(f"{where}: {key}: expected 0 to {count - 1}, an index of its choices, got {row[key]}")
    if task.by_subject and len(row["choices"]) != task.options:
        raise DataError(f"{where}: choices: expected {task.options} of them, got {len(row['choices'])}")
    if task.name == "winogrande" and "_" not in row["question"]:
        raise DataError(f"{where}: question: expected a blank, written _, where the choices go")
    if task.name == "truthfulqa_mc2":
        choices, labels = row["mc2_targets"]["choices"], row["mc2_targets"]["labels"]
        if len(choices) != len(labels) or 1 not in labels:
            raise DataError(f"{where}: mc2_targets.labels: expected {INDICES.expected}, got {labels}")
    if task.name == "ifeval" and len(row["kwargs"]) != len(row["instruction_id_list"]):
        raise DataError(f"{where}: kwargs: expected an object for each of instruction_id_list")
    return checked
