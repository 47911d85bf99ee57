"""Pictures of a source, each with what stands for its class; they are opened when they are needed."""

import io
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgerazor.errors import DataError, install_hint

try:
    from PIL import Image, UnidentifiedImageError
except ModuleNotFoundError as error:
    if error.name != "PIL":
        raise
    raise DataError(f"the package pillow is not installed, which opens pictures: {install_hint('images')}") from error

from edgerazor.data.arrow_rows import inside, is_saved_dataset, read_parquet, read_saved
from edgerazor.data.bad_rows import BadRows
from edgerazor.data.tables import ArrowTable
from edgerazor.schemas.base import nearest
from edgerazor.schemas.data import Source
from edgerazor.schemas.images import ImagesSection
from edgerazor.schemas.paths import local_path

SUFFIXES = frozenset((".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm", ".pgm"))
_KNOWN = ", ".join(sorted(SUFFIXES))
_UNREADABLE = (OSError, ValueError, TypeError, SyntaxError, Image.DecompressionBombError)
_WIDE = ("I", "F")


@dataclass(frozen=True)
class Picture(ABC):
    """One picture of a source.

    Attributes:
        label: name or number of its class; None where there is none.
    """

    label: str | int | None

    @property
    @abstractmethod
    def where(self) -> str:
        """File, or table and row, for people."""

    @abstractmethod
    def _stream(self) -> Any:
        """The encoded bytes: a path or a file object."""

    def check(self, *, whole: bool = False) -> None:
        """Read the beginning, which says what it is, or everything.

        Raises:
            DataError: it is no picture, of no kind that is known, or damaged in what was read.
        """
        try:
            with Image.open(self._stream()) as image:
                if image.mode in _WIDE:
                    raise ValueError("holds numbers of 32 bits; expected 8 or 16 bits for each channel")
                if whole:
                    image.draft(None, (1, 1))  # of a JPEG every bit is read, but few are made a picture
                    image.load()
        except _UNREADABLE as error:
            raise DataError(f"{self.where}: {_reason(error)}") from error

    def open(self, mode: str) -> Any:
        """The decoded picture, as Pillow's `mode` holds it: "RGB", or "L" for grey.

        Raises:
            DataError: it cannot be decoded.
        """
        try:
            with Image.open(self._stream()) as image:
                return _eight_bits(image).convert(mode)
        except _UNREADABLE as error:
            raise DataError(f"{self.where}: {_reason(error)}") from error


@dataclass(frozen=True)
class PictureFile(Picture):
    """A file in the folder of its class."""

    path: Path

    @property
    def where(self) -> str:
        return str(self.path)

    def _stream(self) -> Path:
        return self.path


@dataclass(frozen=True)
class PictureRow(Picture):
    """A row of a table, which holds the bytes of a file, or says where in `folder` it lies."""

    table: ArrowTable
    row: int
    column: str
    folder: Path

    @property
    def where(self) -> str:
        return f"{self.table.name}: row {self.table.number(self.row)}: {self.column}"

    def _stream(self) -> Any:
        value = self.table.value(self.column, self.row)
        if isinstance(value, dict):
            value = value.get("bytes") or value.get("path")
        if isinstance(value, bytes):
            return io.BytesIO(value)
        if isinstance(value, str):
            return self.folder / inside(self.where, value)
        raise DataError(f"{self.where}: holds no picture; expected its bytes, or a path")


def read_pictures(source: Source, section: ImagesSection, bad: BadRows) -> list[Picture]:
    """All pictures of a source, in the order of its files; those that are none go to `bad`.

    Raises:
        DataError: nothing is there, a table lacks the column, or a folder holds neither pictures nor tables.
    """
    pictures = []
    for picture in _listed(source, section):
        try:
            picture.check()
        except DataError as error:
            bad.add(error)
        else:
            pictures.append(picture)
    return pictures


def _listed(source: Source, section: ImagesSection) -> Iterator[Picture]:
    path = local_path(source.path)
    if not path.exists():
        raise DataError(f"{source.path}: no such file or folder")
    needed = {section.image, section.label}
    if path.is_dir() and is_saved_dataset(path):
        yield from _of_table(read_saved(path, source.split, needed), section, path)
    elif path.is_file():
        if path.suffix.lower() != ".parquet":
            raise DataError(f"{path}: expected a Parquet file, or a folder of pictures by class")
        yield from _of_table(read_parquet(path, needed), section, path.parent)
    else:
        yield from _of_folder(path, source.split, section)


def _of_folder(path: Path, split: str | None, section: ImagesSection) -> Iterator[Picture]:
    """Pictures in a folder for each class, or the rows of the Parquet files in it."""
    root = path / split if split is not None and (path / split).is_dir() else path
    tables = sorted(root.rglob("*.parquet"))
    if tables:
        chosen = [file for file in tables if split is None or root != path or split in file.stem.split("-")]
        if not chosen:
            raise DataError(f"{path}: there is no split '{split}'{nearest(str(split), [file.stem for file in tables])}")
        for file in chosen:
            yield from _of_table(read_parquet(file, {section.image, section.label}), section, file.parent)
        return
    if split is not None and root == path:
        folders = [entry.name for entry in path.iterdir() if entry.is_dir()]
        raise DataError(f"{path}: there is no folder '{split}'{nearest(split, folders)}")
    files = sorted(file for file in root.rglob("*") if file.suffix.lower() in SUFFIXES and file.is_file())
    if not files:
        raise DataError(f"{root}: holds no pictures ({_KNOWN}) and no Parquet files")
    places = [file.relative_to(root).parts for file in files]
    classes = {entry.name for entry in root.iterdir() if entry.is_dir() and not entry.name.startswith(".")}
    if empty := sorted(classes - {place[0] for place in places}):
        raise DataError(f"{root}: no pictures ({_KNOWN}) in the class folder {', '.join(empty)}; remove it, or fill it")
    for place, file in zip(places, files, strict=True):
        yield PictureFile(place[0] if len(place) > 1 else None, file)


def _of_table(table: ArrowTable, section: ImagesSection, folder: Path) -> Iterator[Picture]:
    if section.image not in table.names:
        raise DataError(
            f"{table.name}: no column '{section.image}'{nearest(section.image, table.names)}; set data.images.image"
        )
    labels = table.column(section.label) if section.label in table.names else [None] * len(table)
    for row, label in enumerate(labels):
        if not (label is None or isinstance(label, (str, int))):
            where = f"{table.name}: row {table.number(row)}: {section.label}"
            raise DataError(f"{where} is {label!r}; expected a number or a name")
        yield PictureRow(label, table, row, section.image, folder)


def _eight_bits(image: Any) -> Any:
    """A grey picture of 16 bits by its upper bytes, as Pillow reads a coloured one; `convert` would cut it at 255."""
    if not image.mode.startswith("I;16"):
        return image
    return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))


def _reason(error: Exception) -> str:
    return "is no picture that can be read" if isinstance(error, UnidentifiedImageError) else str(error)
