"""Pictures as a model is given them: changed at random in training, then made numbers by its own image processor."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from edgerazor.data.images.pictures import Picture
from edgerazor.data.rows import IGNORE_INDEX
from edgerazor.schemas.images import ImagesSection

_KEPT_BYTES = 1 << 28
_AUGMENTATION = 7  # a random stream of its own, see edgerazor.data.mixing


class ImageRows(Dataset[dict[str, Any]]):
    """Rows `pixel_values [channels, height, width]`, `label` (-100: none) and `draw`, by which a batch may draw.

    Without a random crop a picture is made numbers once and kept, up to 256 MiB in all.

    Args:
        pictures: in order.
        labels: class of each, -100 where there is none.
        processor: image processor of transformers.
        channels: 1 makes pictures grey, 3 coloured.
        augmentation: of training rows; None leaves pictures as they are.
        seed: of what is drawn.
    """

    def __init__(
        self,
        pictures: Sequence[Picture],
        labels: Sequence[int],
        processor: Any,
        *,
        channels: int,
        augmentation: ImagesSection | None = None,
        seed: int = 0,
    ):
        self.pictures, self.labels, self.processor = list(pictures), list(labels), processor
        self.mode = "L" if channels == 1 else "RGB"
        self.augmentation, self.seed = augmentation, seed
        self._kept: dict[int, Tensor] = {}
        # In shared memory, so that workers see it change.
        self._epoch = torch.zeros((), dtype=torch.int64).share_memory_()

    def __len__(self) -> int:
        return len(self.pictures)

    def set_epoch(self, epoch: int) -> None:
        """Let other crops and flips be drawn."""
        self._epoch.fill_(epoch)

    def __getitem__(self, index: int) -> dict[str, Any]:
        draw = (self.seed, int(self._epoch), index)
        rng, chosen = np.random.default_rng([_AUGMENTATION, *draw]), self.augmentation
        if chosen is not None and chosen.crop is not None:
            values = self._numbers(_cropped(self.pictures[index].open(self.mode), chosen.crop, rng))
        else:
            values = self._whole(index)
        if chosen is not None and chosen.flip and rng.random() < 0.5:
            values = values.flip(-1)
        return {"pixel_values": values, "label": self.labels[index], "draw": draw}

    @property
    def labelled(self) -> int:
        """Rows that have a class."""
        return sum(label != IGNORE_INDEX for label in self.labels)

    def _whole(self, index: int) -> Tensor:
        if index not in self._kept:
            values = self._numbers(self.pictures[index].open(self.mode))
            if (len(self._kept) + 1) * values.nbytes > _KEPT_BYTES:
                return values
            self._kept[index] = values
        return self._kept[index]

    def _numbers(self, image: Any) -> Tensor:
        values: Tensor = self.processor(images=image, return_tensors="pt")["pixel_values"][0]
        return values


def _cropped(image: Any, smallest: float, rng: np.random.Generator) -> Any:
    """A random part of a picture of the same proportions, give or take a third, with at least a share of its area."""
    width, height = image.size
    area = rng.uniform(smallest, 1.0)
    stretch = float(np.exp(rng.uniform(np.log(3 / 4), np.log(4 / 3))))
    columns = min(width, max(1, round(width * (area * stretch) ** 0.5)))
    rows = min(height, max(1, round(height * (area / stretch) ** 0.5)))
    left, top = int(rng.integers(width - columns + 1)), int(rng.integers(height - rows + 1))
    return image.crop((left, top, left + columns, top + rows))
