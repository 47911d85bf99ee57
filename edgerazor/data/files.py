"""Reading local files with `datasets`: nothing is cached, nothing is written beside the user's files."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import datasets
import pyarrow as pa
from datasets.utils import logging as datasets_logging

from edgerazor.errors import DataError
from edgerazor.schemas.base import nearest
from edgerazor.schemas.data import Source

KINDS = {".jsonl": "JSON lines", ".json": "JSON", ".parquet": "Parquet", ".txt": "plain text"}
_SAVED_DATASET, _SAVED_SPLITS = "dataset_info.json", "dataset_dict.json"


def read_files(source: Source) -> list[tuple[str, datasets.Dataset]]:
    """Read a source, one dataset per file, with the name that error messages use for it.

    Plain text files give one row each, in column `text`; a folder's files come in the order of their paths.

    Raises:
        DataError: nothing is there, no file is of a known kind, a file cannot be read, or the split does not exist.
    """
    path = Path(source.path).expanduser()
    if not path.exists():
        raise DataError(f"{source.path}: no such file or folder{_neighbour(path)}")
    with _quiet():
        if path.is_dir() and ((path / _SAVED_DATASET).exists() or (path / _SAVED_SPLITS).exists()):
            return [_read_saved(path, source.split)]
        if source.split is not None:
            raise DataError(
                f"{source.path}: split '{source.split}' was asked for, but only a folder saved with "
                "`datasets.save_to_disk` has splits"
            )
        files = _files_of(path)
        texts = [file for file in files if file.suffix == ".txt"]
        tables = [_read_file(file) for file in files if file.suffix != ".txt"]
        return tables + ([_read_texts(path, texts)] if texts else [])


def _neighbour(path: Path) -> str:
    folder = path.parent
    names = [entry.name for entry in folder.iterdir()] if folder.is_dir() else []
    suggestion = nearest(path.name, names)
    return suggestion if suggestion.startswith("; did you mean") else "; expected a path on this machine"


def _files_of(path: Path) -> list[Path]:
    if path.is_file():
        if path.suffix not in KINDS:
            raise DataError(f"{path}: cannot read files that end in '{path.suffix}'; expected {_kinds()}")
        return [path]
    files = sorted(
        file
        for file in path.rglob("*")
        if file.suffix in KINDS
        and file.is_file()
        and not any(part.startswith(".") for part in file.relative_to(path).parts)
    )
    if not files:
        raise DataError(f"{path}: the folder holds no file to train on; expected {_kinds()}")
    return files


def _kinds() -> str:
    return ", ".join(f"{suffix} ({kind})" for suffix, kind in KINDS.items())


def _read_file(file: Path) -> tuple[str, datasets.Dataset]:
    if file.stat().st_size == 0:
        raise DataError(f"{file}: the file is empty")
    if file.suffix == ".parquet":
        return str(file), _in_memory(file, datasets.Dataset.from_parquet, str(file))
    return str(file), _in_memory(file, datasets.Dataset.from_json, str(file))


def _read_texts(path: Path, files: list[Path]) -> tuple[str, datasets.Dataset]:
    names = [str(file) for file in files]
    return str(path), _in_memory(path, datasets.Dataset.from_text, names, sample_by="document")


def _in_memory(path: Path, read: Any, *arguments: Any, **options: Any) -> datasets.Dataset:
    with TemporaryDirectory(prefix="edgerazor-") as cache:
        try:
            return read(*arguments, cache_dir=cache, keep_in_memory=True, **options)
        except (datasets.exceptions.DatasetsError, OSError, ValueError, StopIteration, pa.ArrowException) as error:
            reason = str(error.__cause__ or error) or "it holds no rows"
            raise DataError(f"{path}: cannot be read as {KINDS.get(path.suffix, KINDS['.txt'])}: {reason}") from error


def _read_saved(path: Path, split: str | None) -> tuple[str, datasets.Dataset]:
    try:
        saved = datasets.load_from_disk(str(path))
    except (OSError, ValueError, KeyError, pa.ArrowException) as error:
        raise DataError(f"{path}: cannot be read as a saved dataset: {error}") from error
    if isinstance(saved, datasets.Dataset):
        if split is not None and str(saved.split) != split:
            raise DataError(f"{path}: there is no split '{split}'; this folder holds a single dataset, so leave it out")
        return str(path), saved
    if split is None and len(saved) == 1:
        split = next(iter(saved))
    if split is None:
        raise DataError(f"{path}: holds the splits {', '.join(saved)}; name one with `split`")
    if split not in saved:
        raise DataError(f"{path}: there is no split '{split}'{nearest(split, saved)}")
    return f"{path} ({split})", saved[split]


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the bars of `datasets`, which know nothing of ours; the user's own setting comes back."""
    shown, level = not datasets.are_progress_bars_disabled(), datasets_logging.get_verbosity()
    datasets.disable_progress_bars()
    datasets_logging.set_verbosity_error()
    try:
        yield
    finally:
        datasets_logging.set_verbosity(level)
        if shown:
            datasets.enable_progress_bars()
