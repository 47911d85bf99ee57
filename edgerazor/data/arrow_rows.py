"""Parquet files and folders saved with `datasets`, read by pyarrow: paths are taken literally."""

from collections.abc import Container
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from edgerazor.core.json_files import check_file_name, read_json
from edgerazor.data.tables import ArrowTable
from edgerazor.errors import CheckpointError, DataError
from edgerazor.schemas.base import nearest

_SPLITS, _STATE = "dataset_dict.json", "state.json"


def is_saved_dataset(path: Path) -> bool:
    """Whether `datasets.save_to_disk` made the folder."""
    return (path / _SPLITS).exists() or ((path / _STATE).exists() and (path / "dataset_info.json").exists())


def read_parquet(file: Path, needed: Container[str]) -> ArrowTable:
    """The needed columns of a Parquet file.

    Raises:
        DataError: it is none.
    """
    try:
        with file.open("rb") as stream:
            parquet = pq.ParquetFile(stream)
            names = parquet.schema_arrow.names
            table = parquet.read(columns=[name for name in names if name in needed])
    except (OSError, ValueError, pa.ArrowException) as error:
        raise DataError(f"{file}: cannot be read as Parquet: {error}") from error
    return ArrowTable(str(file), tuple(names), table)


def read_saved(path: Path, split: str | None, needed: Container[str]) -> ArrowTable:
    """A saved dataset, or one split of several.

    Raises:
        DataError: it cannot be read, or there is no such split, or several and none is named.
    """
    if (path / _SPLITS).exists():
        splits = list(_read_json(path / _SPLITS).get("splits", ()))
        if split is None and len(splits) != 1:
            raise DataError(f"{path}: holds the splits {', '.join(splits)}; name one with `split`")
        split = split or splits[0]
        if split not in splits:
            raise DataError(f"{path}: there is no split '{split}'{nearest(split, splits)}")
        return _read_stream(path / inside(str(path / _SPLITS), split), f"{path} ({split})", needed)
    if split is not None and _read_json(path / _STATE).get("_split") != split:
        raise DataError(f"{path}: there is no split '{split}'; this folder holds a single dataset, so leave it out")
    return _read_stream(path, str(path), needed)


def _read_stream(folder: Path, name: str, needed: Container[str]) -> ArrowTable:
    try:
        entries = _read_json(folder / _STATE)["_data_files"]
        files = [folder / inside(str(folder / _STATE), entry["filename"]) for entry in entries]
        tables = [pa.ipc.open_stream(pa.memory_map(str(file))).read_all() for file in files]
        names = tables[0].column_names
        kept = [column for column in names if column in needed]
        return ArrowTable(name, tuple(names), pa.concat_tables([table.select(kept) for table in tables]))
    except (OSError, ValueError, LookupError, TypeError, pa.ArrowException) as error:
        raise DataError(f"{name}: cannot be read as a saved dataset: {error}") from error


def inside(where: str, name: str) -> str:
    """A name that a file gives for another one.

    Raises:
        DataError: it leads out of the folder; `where` is named.
    """
    try:
        check_file_name(name, where)
    except CheckpointError as error:
        raise DataError(str(error)) from error
    return name


def _read_json(file: Path) -> dict[str, Any]:
    try:
        return read_json(file)
    except CheckpointError as error:
        raise DataError(str(error)) from error
