"""Rotary embedding as tables of an operator: the model's own module computes them, its own code says which layer turns.

Local and global rotation, layers without any and heads that turn in part thus need no code per family.
"""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from edgerazor.core.layers.attention import attention_modules
from edgerazor.errors import ExportError

Tables = tuple[Tensor, Tensor]


def rotary_tables(model: Any, positions: int) -> dict[str, Tables]:
    """Tables of the first positions by type of layer, or under "" those of all layers.

    Returns:
        cos and sin, float32 `[positions, turned columns of a head / 2]`, as the model itself computes them.
    """
    rotary, found = model.base_model.rotary_emb, {}
    arguments = torch.zeros(1), torch.arange(positions)[None]
    for kind in layer_types(model):
        with torch.no_grad():
            cos, sin = rotary(*arguments, kind) if kind else rotary(*arguments)
        half = cos.shape[-1] // 2
        found[kind] = cos[0, :, :half].contiguous(), sin[0, :, :half].contiguous()
    return found


def layer_types(model: Any) -> list[str]:
    """Types of layers that turn in ways of their own; "" alone where all turn alike."""
    kinds = getattr(model.base_model.rotary_emb, "rope_type", None)
    return list(kinds) if isinstance(kinds, dict) else [""]


def frequencies(model: Any) -> dict[str, Tensor]:
    """What a model that turns its queries and keys itself computes with, by full name."""
    buffers = model.base_model.rotary_emb.named_buffers()
    home = next(name for name, module in model.named_modules() if module is model.base_model.rotary_emb)
    return {f"{home}.{name}": value for name, value in buffers if "original" not in name}


def table_names(kind: str) -> tuple[str, str]:
    """What cos and sin of a type of layers are called in a graph."""
    end = f"_{kind}" if kind else ""
    return f"cos{end}", f"sin{end}"


def fix_frequencies(model: Any) -> None:
    """Keep the frequencies of the first positions, where the module would change them while it runs."""
    rotary = getattr(model.base_model, "rotary_emb", None)
    if rotary is not None and getattr(rotary, "rope_type", "") == "longrope":
        rotary.rope_type = "default"


@contextmanager
def turned_by_operator(model: Any, tables: Callable[[str], Tables], turning: list[Tables]) -> Iterator[None]:
    """While tracing, layers get whole tables instead of the angles of some positions, and do not turn by them.

    Args:
        model: to be traced.
        tables: those of a type of layers.
        turning: where a layer that would turn its queries and keys leaves its tables, right before it attends.

    Raises:
        ExportError: the model turns in a way of its own.
    """

    def hand_out(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> Tables:
        return tables(kwargs.get("layer_type", args[2] if len(args) > 2 else ""))

    def keep(q: Tensor, k: Tensor, cos: Tensor, sin: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        turning.append((cos, sin))
        return q, k

    homes = _homes(model)
    originals = {home: home.apply_rotary_pos_emb for home in homes}
    hook = model.base_model.rotary_emb.register_forward_hook(hand_out, with_kwargs=True)
    try:
        for home in homes:
            home.apply_rotary_pos_emb = keep
        yield
    finally:
        hook.remove()
        for home, original in originals.items():
            home.apply_rotary_pos_emb = original


def _homes(model: nn.Module) -> list[Any]:
    """Python modules that define the model's attention."""
    homes: list[Any] = []
    for name, attention in attention_modules(model):
        homes.append(sys.modules[type(attention).__module__])
        if not hasattr(homes[-1], "apply_rotary_pos_emb"):
            raise ExportError(f"{name}: its file has no apply_rotary_pos_emb; other ways to rotate are not covered")
    if not homes:
        raise ExportError(f"{type(model).__name__}: no attention module was found")
    return list(dict.fromkeys(homes))
