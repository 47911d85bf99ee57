"""The data section of a recipe, as pictures to train on and pictures held out."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from edgerazor.data.bad_rows import BadRows
from edgerazor.data.images.pictures import Picture, read_pictures
from edgerazor.data.images.rows import ImageRows
from edgerazor.data.load import Data, Usage
from edgerazor.data.mixing import HELD_OUT, ORDER, generator, mix_sources, split_held_out
from edgerazor.data.rows import IGNORE_INDEX
from edgerazor.errors import DataError
from edgerazor.schemas.base import nearest
from edgerazor.schemas.data import DataSection


class Classes:
    """Numbers of classes by what data says of them.

    Args:
        names: `{name: number}` of the model's configuration.
    """

    def __init__(self, names: Mapping[str, int]):
        self.names = dict(names)
        self.count = len(self.names)

    def number(self, label: str | int | None, where: str) -> int:
        """The class of a label; -100 for none.

        Raises:
            DataError: the model has no such class.
        """
        if label is None:
            return IGNORE_INDEX
        if label in self.names:
            return int(self.names[label])  # type: ignore[index]
        if isinstance(label, int) or label.isdecimal():
            if 0 <= int(label) < self.count:
                return int(label)
            raise DataError(f"{where}: class {label}; the model tells 0 to {self.count - 1} apart")
        raise DataError(f"{where}: class '{label}' is none of the model's {self.count}{nearest(label, self.names)}")


def load_images(section: DataSection, processor: Any, *, classes: Classes, channels: int) -> Data:
    """Read, split and mix; the same section gives the same rows.

    Args:
        section: the recipe's `data`, of the task image_classification.
        processor: image processor of the model.
        classes: of the model.
        channels: that the model is given.

    Returns:
        `ImageRows` to train on and held out.

    Raises:
        DataError: a file, column or row is not as expected (it is named), or nothing is left to learn from.
    """
    bad = BadRows(section.on_bad_row)
    sources = [_read(section, index, bad, classes) for index in range(len(section.sources))]
    training, held = [np.arange(len(pictures)) for pictures, _ in sources], list[Any]()
    held_sources = sources
    if isinstance(section.held_out, tuple):
        held_section = section.model_copy(update={"sources": section.held_out})
        held_sources = [_read(held_section, index, bad, classes) for index in range(len(section.held_out))]
        held = [np.arange(len(pictures)) for pictures, _ in held_sources]
    bad.settle()
    paths = [source.path for source in section.sources]
    if empty := [path for path, (pictures, _) in zip(paths, sources, strict=True) if not pictures]:
        raise DataError(f"{', '.join(empty)}: no picture can be used")
    if isinstance(section.held_out, float):
        pairs = [
            split_held_out(len(pictures), section.held_out, path, generator(section.seed, HELD_OUT, number))
            for number, (path, (pictures, _)) in enumerate(zip(paths, sources, strict=True))
        ]
        training, held = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
    training = mix_sources(training, [source.ratio for source in section.sources], paths, section.seed)

    pictures, labels = _chosen(sources, training)
    order = generator(section.seed, ORDER).permutation(len(pictures))
    pictures, labels = [pictures[place] for place in order], [labels[place] for place in order]
    train = ImageRows(pictures, labels, processor, channels=channels, augmentation=section.images, seed=section.seed)
    if not held:
        return Data(train, None, _usage(train, training), bad_rows=bad.count)
    damaged = BadRows(section.on_bad_row)
    held = [_readable(pictures, rows, damaged) for (pictures, _), rows in zip(held_sources, held, strict=True)]
    damaged.settle()
    held_out = ImageRows(*_chosen(held_sources, held), processor, channels=channels)
    if not len(held_out):
        raise DataError("data.held_out: no picture can be used")
    return Data(train, held_out, _usage(train, training), _usage(held_out, held), bad.count + damaged.count)


def _readable(pictures: Sequence[Picture], rows: Sequence[Any], damaged: BadRows) -> list[Any]:
    """The rows whose pictures can be read whole: they are first needed when a run has cost its time."""
    kept = []
    for row in rows:
        try:
            pictures[row].check(whole=True)
        except DataError as error:
            damaged.add(error)
        else:
            kept.append(row)
    return kept


def _chosen(sources: Sequence[tuple[list[Picture], list[int]]], rows: Sequence[Any]) -> tuple[list[Picture], list[int]]:
    """Pictures and classes of the rows that were chosen of each source, one source after the other."""
    chosen = list(zip(sources, rows, strict=True))
    pictures = [of_source[row] for (of_source, _), index in chosen for row in index]
    return pictures, [of_source[row] for (_, of_source), index in chosen for row in index]


def _read(section: DataSection, index: int, bad: BadRows, classes: Classes) -> tuple[list[Picture], list[int]]:
    pictures, labels = list[Picture](), list[int]()
    for picture in read_pictures(section.sources[index], section.images, bad):
        try:
            labels.append(classes.number(picture.label, picture.where))
        except DataError as error:
            bad.add(error)
        else:
            pictures.append(picture)
    return pictures, labels


def _usage(rows: ImageRows, chosen: Sequence[Any]) -> Usage:
    return Usage(tuple(map(len, chosen)), empty=0, cut=0, unused=0, tokens=len(rows), labels=rows.labelled, longest=1)
