"""Rows into a batch."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from edgerazor.core.outputs import position_masks
from edgerazor.data.rows import IGNORE_INDEX


class Collator:
    """Pads rows of `load_data` to one length and makes tensors of them.

    A batch holds `input_ids`, `labels` (int64 `[batch, seq]`), `label_bytes` (int64 `[batch]`), `token_mask` (bool
    `[batch, seq]`, false at padding; for losses and selectors, not for the model), `prediction_rows` (int64, indices of
    the positions of the flattened batch whose next token is learned; found here, so that nobody waits for a device to
    find them), and

    - for packed rows `position_ids` (int64 `[batch, seq]`) and no attention mask: transformers takes every restart of
      the positions as the start of a sequence of its own, as long as the model runs with `use_cache=False`. Padding is
      one more such sequence, so real tokens never see it;
    - for other rows `attention_mask` (int64 `[batch, seq]`).

    Args:
        pad_token_id: what padding is filled with; no loss looks at it.
        length: pad to this length, for shapes that never change; None: to the longest row of the batch.
    """

    def __init__(self, pad_token_id: int, *, length: int | None = None):
        self.pad_token_id = pad_token_id
        self.length = length

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
        """Make one batch of rows.

        Raises:
            ValueError: a row is longer than `length`.
        """
        lengths = np.array([len(row["input_ids"]) for row in rows])
        width = int(lengths.max()) if self.length is None else self.length
        if lengths.max() > width:
            raise ValueError(f"a row of {lengths.max()} tokens does not fit into the length {width}")
        is_token = np.arange(width) < lengths[:, None]
        batch = {
            "input_ids": _filled([row["input_ids"] for row in rows], is_token, self.pad_token_id),
            "labels": _filled([row["labels"] for row in rows], is_token, IGNORE_INDEX),
            "label_bytes": torch.tensor([int(row["label_bytes"]) for row in rows]),
            "token_mask": torch.from_numpy(is_token),
        }
        batch["prediction_rows"] = prediction_rows(batch["labels"])
        if "position_ids" in rows[0]:
            positions = np.arange(width) - lengths[:, None]
            batch["position_ids"] = _filled([row["position_ids"] for row in rows], is_token, positions)
        else:
            batch["attention_mask"] = torch.from_numpy(is_token.astype(np.int64))
        return batch

    def blank(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """A row that fills a batch and counts for nothing."""
        return {**row, "labels": [IGNORE_INDEX] * len(row["labels"]), "label_bytes": 0}


def prediction_rows(labels: Tensor) -> Tensor:
    """Indices of the flattened positions `[batch, seq]` whose next label is learned, ascending."""
    return position_masks(labels, None, ignore_index=IGNORE_INDEX)[1].flatten().nonzero().squeeze(-1)


def _filled(values: list[Any], is_token: np.ndarray, padding: int | np.ndarray) -> Tensor:
    """Int64 `[batch, seq]`: the rows' values where there is a token, `padding` elsewhere."""
    result = np.empty(is_token.shape, dtype=np.int64)
    result[...] = padding
    result[is_token] = np.concatenate([np.asarray(row) for row in values])
    return torch.from_numpy(result)
