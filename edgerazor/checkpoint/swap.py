"""Putting packed modules in the place of a model's own, and ordinary ones back."""

import re
from typing import Any

import torch
from torch import Tensor, nn

from edgerazor.checkpoint.section import PackedSection
from edgerazor.core.blocks import block_shape
from edgerazor.core.contracts import Quantizer
from edgerazor.core.layers.attention import EAGER, SDPA, attention_modules
from edgerazor.core.layers.experts import FusedMatrices, find_matrix, put_float_experts, put_packed_experts
from edgerazor.core.layers.packed import PackedEmbedding, PackedLinear, PackedMatrices, PackedWeight, TiedPackedLinear
from edgerazor.errors import CheckpointError


def swap_in_packed(model: Any, section: PackedSection, *, input_quantizer: Quantizer | None) -> None:
    """Replace every module that the section names by an empty packed one of the same device and dtype, in place.

    Raises:
        CheckpointError: a module is missing from the model, or its shape does not fit its layout. All are named.
    """
    problems: list[str] = []
    swapped: dict[str, nn.Module] = {}
    for name in section.modules:
        try:
            swapped[name] = _packed(_find(model, name), section, name, input_quantizer)
        except CheckpointError as error:
            problems.append(f"{name}: {error}")
    for name, owner in section.tied.items():
        try:
            head = _find(model, name)
        except CheckpointError as error:
            problems.append(f"{name}: {error}")
            continue
        if owner in swapped:
            swapped[name] = _tied(head, swapped[owner], input_quantizer)  # type: ignore[arg-type]
    if problems:
        raise CheckpointError("\n".join(problems))
    for name, module in swapped.items():
        _put(model, name, module, input_quantizer)
    if section.tied:
        # On the instance: tying looks parameters up, and the tied head has none.
        model._tied_weights_keys = {}
        model.all_tied_weights_keys = {}
    ignored = set(getattr(model, "_keys_to_ignore_on_load_unexpected", None) or ())
    model._keys_to_ignore_on_load_unexpected = ignored | {f"^{re.escape(section.guard)}$"}


def fill_packed(model: nn.Module, tensors: dict[str, Tensor]) -> None:
    """Copy packed tensors, by their names in the file, into the modules that `swap_in_packed` made."""
    for name, tensor in tensors.items():
        model.get_buffer(name).copy_(tensor)


def swap_out_packed(model: Any, dtype: torch.dtype) -> None:
    """Replace packed modules by ordinary linear layers and embeddings that hold the dequantized values, in place.

    Inputs, keys and values are not quantized any more; parameters can be trained again.
    """
    restored: dict[str, nn.Module] = {}
    tied = [(name, module) for name, module in model.named_modules() if isinstance(module, TiedPackedLinear)]
    owners: dict[int, nn.Module] = {}
    for name, module in list(model.named_modules()):
        if isinstance(module, PackedMatrices):
            owner, _, leaf = name.rpartition(".")
            values = module.quantized().dequantize(dtype).unflatten(0, (module.count, -1))
            put_float_experts(model.get_submodule(owner), leaf, nn.Parameter(values))
        elif isinstance(module, PackedWeight):
            weight = nn.Parameter(module.quantized().dequantize(dtype))
            restored[name] = owners[id(module)] = _ordinary(module, weight)
    for name, head in tied:
        restored[name] = _ordinary(head, owners[id(head.owner)].weight)  # type: ignore[arg-type]
    for name, module in restored.items():
        model.set_submodule(name, module)
    for parameter in model.parameters():
        parameter.data = parameter.data.to(dtype)
        parameter.requires_grad_(True)
    for attribute in ("_tied_weights_keys", "_keys_to_ignore_on_load_unexpected", "_weight_conversions"):
        model.__dict__.pop(attribute, None)
    model.all_tied_weights_keys = model.get_expanded_tied_weights_keys(all_submodels=True)
    model.tie_weights()
    _plain_attention(model)


def packed_layers(model: nn.Module) -> list[PackedWeight | TiedPackedLinear]:
    """All modules that compute from packed codes."""
    return [module for module in model.modules() if isinstance(module, (PackedWeight, TiedPackedLinear))]


def _find(model: nn.Module, name: str) -> nn.Module:
    found = find_matrix(model, name)
    if found is None:
        raise CheckpointError(
            f"{type(model).__name__} has no such module; load packed checkpoints with edgerazor.load_model or "
            "AutoModelForCausalLM"
        )
    return found


def _put(model: nn.Module, name: str, module: nn.Module, quantizer: Quantizer | None) -> None:
    found = find_matrix(model, name)
    if isinstance(found, FusedMatrices) and isinstance(module, PackedMatrices):
        put_packed_experts(found, module, quantizer)
    else:
        model.set_submodule(name, module)


def _packed(module: nn.Module, section: PackedSection, name: str, quantizer: Quantizer | None) -> PackedWeight:
    if not isinstance(module, (nn.Linear, nn.Embedding, FusedMatrices)):
        raise CheckpointError(f"is a {type(module).__name__}; expected a linear layer or an embedding")
    layout, (rows, columns) = section.layout(name), block_shape(tuple(module.weight.shape), 1)
    if columns % layout.group_size or layout.wide_rows > rows:
        raise CheckpointError(f"a matrix of {rows} rows and {columns} columns does not fit {layout}")
    kind: type[PackedWeight] = PackedEmbedding if isinstance(module, nn.Embedding) else PackedLinear
    kind = PackedMatrices if isinstance(module, FusedMatrices) else kind
    packed = kind.empty(layout, (rows, columns), dtype=module.weight.dtype, device=module.weight.device)
    if isinstance(packed, PackedMatrices):
        packed.count = module.weight.shape[0]
    elif isinstance(packed, PackedEmbedding):
        packed.padding_idx = module.padding_idx  # type: ignore[assignment]
    elif isinstance(packed, PackedLinear):
        packed.bias, packed.input_quantizer = module.bias, quantizer  # type: ignore[assignment]
    return packed


def _tied(module: nn.Module, owner: PackedWeight, quantizer: Quantizer | None) -> TiedPackedLinear:
    head = TiedPackedLinear(owner)
    head.bias, head.input_quantizer = getattr(module, "bias", None), quantizer
    return head


def _ordinary(module: Any, weight: nn.Parameter) -> nn.Module:
    rows, columns = weight.shape
    if isinstance(module, PackedEmbedding):
        embedding = nn.Embedding(rows, columns, module.padding_idx, device="meta")
        embedding.weight = weight
        return embedding
    linear = nn.Linear(columns, rows, bias=module.bias is not None, device="meta")
    linear.weight = weight
    if module.bias is not None:
        linear.bias = module.bias
    return linear


def _plain_attention(model: Any) -> None:
    """Take the quantizers of keys and values away and return to the attention of transformers."""
    for _, module in attention_modules(model):
        module.__dict__.pop("kv_quantizer", None)
    plain = {SDPA: "sdpa", EAGER: "eager"}.get(getattr(model.config, "_attn_implementation", None) or "")
    if plain is not None:
        model.set_attn_implementation(plain)
