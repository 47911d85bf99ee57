"""What a plan says about matrices it leaves at 16 bit, so that none is passed over in silence (METHOD 3)."""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import NamedTuple

from torch import nn
from torch.nn.modules.conv import _ConvNd

from edgerazor.core.names import group_name, layer_pattern

Why = Callable[[str], str | None]


def left_out_notes(
    model: nn.Module, candidates: Collection[str], rest: Mapping[str, nn.Parameter], *, why: Why | None = None
) -> list[str]:
    """One line per kind of matrix outside the plan: names, shape, why, and its share of the parameters.

    Args:
        model: whole model; may be on the meta device.
        candidates: names of the modules that a rule may take.
        rest: parameters that no planned module owns; those with fewer than two axes need no line.
        why: the family's own reason for a module's name, or None where it has none.
    """
    groups: dict[tuple[str, tuple[int, ...], str], list[str]] = {}
    for name, parameter in rest.items():
        if parameter.ndim > 1:
            shown, reason = _reason(model, name, candidates, why)
            groups.setdefault((layer_pattern(shown), tuple(parameter.shape), reason), []).append(name)
    total = sum(parameter.numel() for parameter in model.parameters())
    notes = []
    for (_, shape, reason), names in groups.items():
        weights = sum(rest[name].numel() for name in names)
        shown = group_name([_reason(model, name, candidates, why)[0] for name in names])
        notes.append(
            f"{shown} {list(shape)}: {reason}; stays at 16 bit, which takes {weights / total:.2%} off the coverage"
        )
    return notes


class WholeRows(NamedTuple):
    """A module whose rows have one scale each in place of groups of the size that its rule asks for."""

    name: str
    columns: int
    group_size: int | None


def whole_row_notes(modules: Sequence[WholeRows]) -> list[str]:
    """One line per kind of module whose rows got one scale each."""
    groups: dict[tuple[str, int, int | None], list[str]] = {}
    for module in modules:
        groups.setdefault((layer_pattern(module.name), module.columns, module.group_size), []).append(module.name)
    return [
        f"{group_name(names)}: one scale a row: no group size that engines take divides {columns} columns, nor does "
        f"{size}"
        for (_, columns, size), names in groups.items()
    ]


def shared_weight_notes(model: nn.Module, candidates: Mapping[str, nn.Module], owned: Collection[int]) -> list[str]:
    """Modules that no rule can take but that share a weight (by `id`) with one that a rule took."""
    return [
        f"{name} ({type(module).__name__}) shares its weight with a quantized module, but cannot be quantized here; "
        "it computes with the weight as it is"
        for name, module in model.named_modules()
        if name not in candidates and id(getattr(module, "weight", None)) in owned
    ]


def bypass_reason(model: nn.Module, name: str) -> str | None:
    """Why the weights of the module `name` would be used without being quantized; None if they would not.

    torch's `nn.MultiheadAttention` hands its parameters, those of its output projection too, to a function of torch (or
    to its fast path) that calls no module: what a layer makes of its weight in its own forward is passed over.
    """
    owner, _, leaf = name.rpartition(".")
    module = model.get_submodule(owner)
    if not any(isinstance(found, nn.MultiheadAttention) for found in (module, getattr(module, leaf, None))):
        return None
    return (
        "nn.MultiheadAttention is not quantized: it hands its weights to a function of torch, which would use them as "
        "they are; write the attention with linear layers for q, k, v and the output"
    )


def _reason(model: nn.Module, parameter_name: str, candidates: Collection[str], why: Why | None) -> tuple[str, str]:
    """Name to show and why the matrix is left out."""
    owner, _, leaf = parameter_name.rpartition(".")
    shown = owner if leaf == "weight" else parameter_name
    if shown in candidates:
        return shown, "no rule takes it"
    if why is not None and (reason := why(owner)):
        return shown, reason
    module = model.get_submodule(owner)
    kind = type(module).__name__
    if isinstance(module, _ConvNd):
        return shown, f"{kind}: convolutions are not quantized"
    if reason := bypass_reason(model, owner):
        return shown, reason
    return shown, f"{kind} cannot be quantized here"
