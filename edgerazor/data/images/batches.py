"""Rows of pictures into a batch."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from edgerazor.data.rows import IGNORE_INDEX

_MIXUP = 8


class ImageCollator:
    """Stacks rows of `ImageRows`, and mixes each picture with the one before it where `mixup` says so.

    A batch holds `pixel_values` (float32 `[batch, channels, height, width]`), `labels` (int64 `[batch, labels]`, -100
    where there is none; two labels of mixed pictures), `label_shares` (float32 `[batch, labels]`: how much of the task
    each label is), `token_mask` (bool `[batch, positions]`, false for a row that fills a batch) and `prediction_rows`
    (int64, indices of the flattened labels of real rows).

    Args:
        positions: in a hidden state of the model.
        mixup: both parameters of the beta distribution; None: pictures stay apart.
    """

    def __init__(self, positions: int, *, mixup: float | None = None):
        self.positions, self.mixup = positions, mixup

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
        """Make one batch of rows."""
        values = torch.stack([row["pixel_values"] for row in rows])
        labels = torch.tensor([[int(row["label"])] for row in rows])
        shares = torch.ones(len(rows), 1)
        if self.mixup is not None and len(rows) > 1:
            share = self._share(rows)
            values = share * values + (1 - share) * values.roll(1, dims=0)
            labels = torch.cat([labels, labels.roll(1, dims=0)], dim=1)
            shares = torch.tensor([[share, 1 - share]]).expand(len(rows), 2)
        is_real = torch.tensor([bool(row.get("is_real", True)) for row in rows])
        return {
            "pixel_values": values,
            "labels": labels,
            "label_shares": shares * (labels != IGNORE_INDEX),
            "token_mask": is_real[:, None].repeat(1, self.positions),
            "prediction_rows": is_real[:, None].expand(labels.shape).flatten().nonzero().squeeze(-1),
        }

    def blank(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """A row that fills a batch and counts for nothing."""
        return {**row, "label": IGNORE_INDEX, "is_real": False}

    def _share(self, rows: Sequence[Mapping[str, Any]]) -> float:
        """Of each picture in its mixture; it follows from what the rows were drawn by."""
        assert self.mixup is not None
        drawn = [number for row in rows for number in row["draw"]]
        return float(np.random.default_rng([_MIXUP, *drawn]).beta(self.mixup, self.mixup))
