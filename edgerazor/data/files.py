"""Which files a source is: a path is a path, whatever characters it has."""

import re
from collections.abc import Container
from pathlib import Path

from edgerazor.data.arrow_rows import is_saved_dataset, read_parquet, read_saved
from edgerazor.data.bad_rows import BadRows
from edgerazor.data.json_rows import read_csv, read_json, read_json_lines, read_text
from edgerazor.data.tables import Table
from edgerazor.errors import DataError
from edgerazor.schemas.base import nearest
from edgerazor.schemas.data import Source
from edgerazor.schemas.paths import local_path

KINDS = {
    ".jsonl": "JSON lines",
    ".json": "JSON",
    ".csv": "comma-separated values",
    ".parquet": "Parquet",
    ".txt": "plain text",
}
_COMPRESSED = (".gz", ".zst")
_READERS = {".jsonl": read_json_lines, ".json": read_json, ".csv": read_csv, ".txt": read_text}
_ABOUT = ("dataset_info.json", "dataset_infos.json", "dataset_dict.json", "state.json")
_SHARD = re.compile(r"(?P<split>.+?)-\d{5}-of-\d{5}$")


def read_files(source: Source, needed: Container[str], bad: BadRows) -> list[Table]:
    """Read a source, one table per file.

    A folder's files come in the order of their paths, plain text files (one row each) at the end.

    Args:
        needed: columns to read.
        bad: collects lines that are no rows.

    Raises:
        DataError: nothing is there, no file is of a known kind, a file cannot be read, or the split does not exist.
    """
    path = local_path(source.path)
    if not path.exists():
        raise DataError(f"{source.path}: no such file or folder{_neighbour(path)}")
    if path.is_dir() and is_saved_dataset(path):
        return [read_saved(path, source.split, needed)]
    if path.is_dir():
        files = _of_split(path, _files_in(path), source.split)
    elif source.split is not None:
        raise DataError(f"{source.path}: split '{source.split}' was asked for, but only a folder has splits")
    elif _kind(path) is None:
        raise DataError(f"{path}: cannot read files that end in '{path.suffix}'; expected {_kinds()}")
    else:
        files = [path]
    return [_read(file, needed, bad) for file in sorted(files, key=lambda file: _kind(file) == ".txt")]


def _read(file: Path, needed: Container[str], bad: BadRows) -> Table:
    if file.stat().st_size == 0:
        raise DataError(f"{file}: the file is empty")
    kind = _kind(file)
    return _READERS[kind](file, needed, bad) if kind in _READERS else read_parquet(file, needed)


def _kind(file: Path) -> str | None:
    """The suffix that says how a file is read; None: there is no way."""
    suffixes = [suffix.lower() for suffix in file.suffixes]
    if suffixes and suffixes[-1] in _COMPRESSED:
        suffixes.pop()
        return suffixes[-1] if suffixes and suffixes[-1] in _READERS else None
    return suffixes[-1] if suffixes and suffixes[-1] in KINDS else None


def _files_in(folder: Path) -> list[Path]:
    files = sorted(
        file
        for file in folder.rglob("*")
        if _kind(file) is not None
        and file.name not in _ABOUT
        and file.is_file()
        and not any(part.startswith(".") for part in file.relative_to(folder).parts)
    )
    if not files:
        raise DataError(f"{folder}: the folder holds no file to train on; expected {_kinds()}")
    return files


def _of_split(folder: Path, files: list[Path], split: str | None) -> list[Path]:
    """Files of a split: named after it (on the hub `train-00000-of-00002.parquet`), or in a folder of that name."""
    if split is not None:
        chosen = [file for file in files if split in (*_names(file), *file.relative_to(folder).parts[:-1])]
        if not chosen:
            known = {name for file in files for name in _names(file)}
            raise DataError(f"{folder}: there is no split '{split}'{nearest(split, known)}")
        return chosen
    splits = sorted({found["split"] for file in files if (found := _SHARD.match(_stem(file)))})
    if len(splits) > 1:
        raise DataError(f"{folder}: holds the splits {', '.join(splits)}; name one with `split`")
    return files


def _names(file: Path) -> tuple[str, ...]:
    found = _SHARD.match(_stem(file))
    return (found["split"] if found else _stem(file),)


def _stem(file: Path) -> str:
    name = file.name
    for suffix in reversed(file.suffixes[-2:] if file.suffix.lower() in _COMPRESSED else file.suffixes[-1:]):
        name = name.removesuffix(suffix)
    return name


def _neighbour(path: Path) -> str:
    folder = path.parent
    names = [entry.name for entry in folder.iterdir()] if folder.is_dir() else []
    suggestion = nearest(path.name, names)
    return suggestion if suggestion.startswith("; did you mean") else "; expected a path on this machine"


def _kinds() -> str:
    return ", ".join(f"{suffix} ({kind})" for suffix, kind in KINDS.items()) + ", text also as .gz or .zst"
