"""Attention with the cache inside, as one operator that also turns and appends keys, or by standard operators."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface

from edgerazor.plugins.exporters.onnx.rotary import Tables

NAME, WITHOUT_CACHE = "edgerazor_onnx", "edgerazor_onnx_without_cache"
multiple: Any = torch.onnx.ops.symbolic_multi_out


class FusedAttention:
    """One operator that turns queries and keys where the layer does, appends to the cache and attends.

    Args:
        past: key and value of each layer, `[batch, kv_heads, past, head_dim]`.
        lengths: int32 `[batch]`, tokens of each row less one.
        total: int32 scalar, columns of the mask.
        windows: last positions that a layer attends to, of those that do not attend to all.
        turning: tables of the layer that is about to attend, if it turns its queries and keys.

    Attributes:
        present: key and value of each layer with the new positions, filled as the layers run.
    """

    def __init__(
        self,
        past: tuple[Tensor, ...],
        lengths: Tensor,
        total: Tensor,
        *,
        windows: Mapping[int, int],
        turning: list[Tables],
    ):
        self.past, self.others, self.windows, self.turning = past, (lengths, total), windows, turning
        self.present: dict[int, tuple[Tensor, Tensor]] = {}

    def __call__(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
        """`[batch, heads, seq, head_dim]` each, to `[batch, seq, heads, head_dim]`."""
        batch, heads, length, width = query.shape
        kv_heads = key.shape[1]
        flat = [states.transpose(1, 2).reshape(batch, length, -1) for states in (query, key, value)]
        past_key, past_value = self.past[2 * layer : 2 * layer + 2]
        tables = self.turning.pop() if self.turning else ()
        attributes: dict[str, Any] = {
            "num_heads": heads,
            "kv_num_heads": kv_heads,
            "scale": scale,
            "do_rotary": int(bool(tables)),
            "rotary_interleaved": 0,
        }
        if layer in self.windows:
            attributes["local_window_size"] = self.windows[layer]
        present = (batch, kv_heads, past_key.shape[2] + length, width)
        output, present_key, present_value = multiple(
            "com.microsoft::GroupQueryAttention",
            (*flat, past_key, past_value, *self.others, *tables),
            attributes,
            dtypes=(query.dtype,) * 3,
            shapes=((batch, length, heads * width), present, present),
            version=1,
        )
        self.present[layer] = present_key, present_value
        return output.reshape(batch, length, heads, width)  # type: ignore[no-any-return]


class StandardAttention:
    """The same for queries and keys that are turned already.

    Args:
        past: as above.
        allowed: bool `[batch, 1, seq, past + seq]`, by window; None for layers without one.
        windows: as above.
    """

    def __init__(self, past: tuple[Tensor, ...], allowed: Mapping[int | None, Tensor], *, windows: Mapping[int, int]):
        self.past, self.allowed, self.windows = past, allowed, windows
        self.present: dict[int, tuple[Tensor, Tensor]] = {}

    def __call__(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
        """`[batch, heads, seq, head_dim]` each, to `[batch, seq, heads, head_dim]`."""
        past = self.past[2 * layer : 2 * layer + 2]
        key, value = (torch.cat(pair, dim=2) for pair in zip(past, (key, value), strict=True))
        self.present[layer] = key, value
        # Heads that share keys and values stand side by side.
        grouped = query.unflatten(1, (key.shape[1], -1))
        scores = grouped @ key.unsqueeze(2).transpose(-1, -2) * scale
        allowed = self.allowed[self.windows.get(layer)]
        scores = torch.where(allowed.unsqueeze(1), scores, torch.finfo(scores.dtype).min)
        mixed = torch.softmax(scores, dim=-1) @ value.unsqueeze(2)
        return mixed.flatten(1, 2).transpose(1, 2)


def register() -> None:
    """Make the attentions known to transformers; without a mask function, so that no mask is built."""
    AttentionInterface.register(NAME, _attention)
    AttentionInterface.register(WITHOUT_CACHE, _attention_without_cache)


def _attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None = None,
    scaling: float | None = None,
    **ignored: Any,
) -> tuple[Tensor, None]:
    """What transformers calls; the module's `onnx_attention` computes."""
    layer: Any = module
    scale = float(scaling if scaling is not None else query.shape[-1] ** -0.5)
    return layer.onnx_attention(layer.layer_idx, query, key, value, scale), None


def _attention_without_cache(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None = None,
    scaling: float | None = None,
    **ignored: Any,
) -> tuple[Tensor, None]:
    """What transformers calls for the positions of an image; a mask is the model's own, as of relative positions."""
    scale = float(scaling if scaling is not None else query.shape[-1] ** -0.5)
    scores = query @ key.transpose(-1, -2) * scale
    if attention_mask is not None:
        allowed = attention_mask.dtype == torch.bool
        scores = scores.masked_fill(~attention_mask, -torch.inf) if allowed else scores + attention_mask
    return (torch.softmax(scores, dim=-1) @ value).transpose(1, 2), None
