"""Putting packed modules in the place of a model's own, and ordinary ones back."""

import re
from typing import Any

import torch
from torch import Tensor, nn

from edgerazor.checkpoint.section import PackedSection
from edgerazor.core.contracts import Quantizer
from edgerazor.core.layers.attention import EAGER, SDPA, remove_kv_quantizer
from edgerazor.core.layers.kind import LayerKind
from edgerazor.core.layers.packed import PackedWeight, TiedPackedWeight
from edgerazor.core.layers.quantized_linear import InputSlot
from edgerazor.core.layers.table import find_layer, kind_of, packed_kind_of
from edgerazor.errors import CheckpointError


def swap_in_packed(
    model: Any, section: PackedSection, *, input_quantizer: Quantizer | None, allocate: bool = True
) -> dict[str, PackedWeight]:
    """Replace every module that the section names by an empty packed one of the same device and dtype, in place.

    Args:
        model: its modules are replaced.
        section: of its checkpoint.
        input_quantizer: of activations; None leaves them as they are.
        allocate: False makes no tensors, which `PackedWeight.hold` is to give the modules.

    Returns:
        The modules that hold codes, by full name.

    Raises:
        CheckpointError: a module is missing from the model, or its shape does not fit its layout. All are named.
    """
    problems: list[str] = []
    packed: dict[str, PackedWeight] = {}
    replacements: list[tuple[LayerKind, str, nn.Module]] = []
    for name in (*section.modules, *section.tied):
        try:
            kind, layer = _quantizable(model, name)
            if name in section.modules:
                packed[name] = kind.empty_packed(layer, section.layout(name), input_quantizer, allocate=allocate)
                replacements.append((kind, name, packed[name]))
            elif (owner := packed.get(section.tied[name])) is not None:
                replacements.append((kind, name, kind.tied(layer, owner, input_quantizer)))
        except CheckpointError as error:
            problems.append(f"{name}: {error}")
    if problems:
        raise CheckpointError("\n".join(problems))
    slot = InputSlot()
    for kind, name, module in replacements:
        kind.share_inputs(module, slot)
        kind.put_packed(model, name, module, input_quantizer)
    if section.tied:
        # On the instance: tying looks parameters up, and the tied head has none.
        model._tied_weights_keys = {}
        model.all_tied_weights_keys = {}
    ignored = set(getattr(model, "_keys_to_ignore_on_load_unexpected", None) or ())
    model._keys_to_ignore_on_load_unexpected = ignored | {f"^{re.escape(section.guard)}$"}
    return packed


def fill_packed(model: nn.Module, tensors: dict[str, Tensor]) -> None:
    """Copy packed tensors, by their names in the file, into the modules that `swap_in_packed` made."""
    for name, tensor in tensors.items():
        model.get_buffer(name).copy_(tensor)


def swap_out_packed(model: Any, dtype: torch.dtype) -> None:
    """Replace packed modules by ordinary layers that hold the dequantized values, in place.

    Inputs, keys and values are not quantized any more; parameters can be trained again.
    """
    weights: dict[int, nn.Parameter] = {}
    layers = [(name, module, kind) for name, module in model.named_modules() if (kind := packed_kind_of(module))]
    for name, module, kind in layers:
        if isinstance(module, PackedWeight):
            weights[id(module)] = nn.Parameter(kind.values(module, dtype))
            kind.restore(model, name, weights[id(module)])
    for name, module, kind in layers:
        if isinstance(module, TiedPackedWeight):
            kind.restore(model, name, weights[id(module.owner)])
    for parameter in model.parameters():
        parameter.data = parameter.data.to(dtype)
        parameter.requires_grad_(True)
    for attribute in ("_tied_weights_keys", "_keys_to_ignore_on_load_unexpected", "_weight_conversions"):
        model.__dict__.pop(attribute, None)
    model.all_tied_weights_keys = model.get_expanded_tied_weights_keys(all_submodels=True)
    model.tie_weights()
    _plain_attention(model)


def _quantizable(model: nn.Module, name: str) -> tuple[LayerKind, nn.Module]:
    layer = find_layer(model, name)
    if layer is None:
        raise CheckpointError(
            f"{type(model).__name__} has no such module; load packed checkpoints with edgerazor.load_model or "
            "AutoModelForCausalLM"
        )
    kind = kind_of(layer)
    if kind is None:
        raise CheckpointError(f"is a {type(layer).__name__}; expected a linear layer or an embedding")
    return kind, layer


def _plain_attention(model: Any) -> None:
    """Take the quantizers of keys and values away and return to the attention of transformers."""
    remove_kv_quantizer(model)
    plain = {SDPA: "sdpa", EAGER: "eager"}.get(getattr(model.config, "_attn_implementation", None) or "")
    if plain is not None:
        model.set_attn_implementation(plain)
