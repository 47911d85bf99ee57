"""What a model's weights become on disk: codes for the quantized, a 16-bit float for the rest where that is exact."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from edgerazor.core.layers.kind import LayerKind
from edgerazor.core.layers.table import find_layer, kind_of, trained_layers
from edgerazor.core.module_plan import ModulePlan
from edgerazor.core.packing import Layout, Tensors, content_digest, pack
from edgerazor.core.plan import Plan
from edgerazor.core.tensor import QuantizedTensor
from edgerazor.errors import CheckpointError
from edgerazor.models.stored_weights import StoredWeights

_NOT_ZERO = 2.0**-15  # groups up to here become zero under every quantizer (METHOD 1.4)


@dataclass
class PackedModules:
    """All quantized modules of a model, packed.

    Attributes:
        bytes: of all packed tensors.
        layouts: by module name.
        digest: content_sha256 over the modules by sorted name.
        constant_groups: `{module: groups}` of constant magnitude that a ternary row cannot hold (METHOD 1.4).
        mixed_inside: modules whose rows mix widths, stored at each row's widest.
        wide_tensors: other tensors of the model that no 16-bit float holds exactly.
        notes: what else a reader should know, one line each.
    """

    bytes: int = 0
    layouts: dict[str, Layout] = field(default_factory=dict)
    digest: str = ""
    constant_groups: dict[str, int] = field(default_factory=dict)
    mixed_inside: list[str] = field(default_factory=list)
    wide_tensors: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def pack_modules(
    model: nn.Module, plan: Plan, store: Callable[[Tensors], object], weights: StoredWeights | None = None
) -> PackedModules:
    """Quantize and pack every module that owns a quantized weight, one after the other.

    Args:
        model: with the plan applied.
        plan: of the model.
        store: takes the tensors of one module by their names in the file, on the CPU.
        weights: where the model is on the meta device: its weights are read as they are needed.

    Raises:
        CheckpointError: a module is not quantization-aware, or its scales or widths cannot be stored.
    """
    packed = PackedModules()

    def stream() -> Iterator[tuple[str, QuantizedTensor]]:
        for entry in sorted(plan.quantized, key=lambda module: module.name):
            with weights.present(entry.parameter_name) if weights else nullcontext():
                kind, layer = _trained_layer(model, entry)
                quantized = kind.codes(layer)
                weight = kind.matrices(layer).stack(layer.weight.detach())
                if constant := count_constant_groups(weight, quantized):
                    packed.constant_groups[entry.name] = constant
                del weight
            try:
                layout, tensors = pack(quantized)
            except CheckpointError as error:
                raise CheckpointError(f"{entry.parameter_name}: {error}") from error
            packed.layouts[entry.name] = layout
            packed.bytes += sum(tensor.numel() * tensor.itemsize for tensor in tensors.values())
            store({f"{entry.name}.{key}": value.cpu().contiguous() for key, value in tensors.items()})
            if quantized.qmax.ndim == 2:
                packed.mixed_inside.append(entry.name)
            yield entry.name, quantized

    with torch.no_grad():
        packed.digest = content_digest(stream())
    return packed


def count_constant_groups(weight: Tensor, quantized: QuantizedTensor) -> int:
    """Ternary groups whose magnitudes are all equal and which come out as zero or doubled (METHOD 1.4).

    `scale: absmax` is exact on them.

    Args:
        weight: `[R, C]`, what was quantized.
        quantized: what came of it.
    """
    ternary = quantized.widest_qmax() == 1
    if not bool(ternary.any()):
        return 0
    groups = weight[ternary].float().abs().unflatten(-1, (-1, quantized.group_size))
    low, high = groups.amin(dim=-1), groups.amax(dim=-1)
    first = quantized.codes[ternary].unflatten(-1, (-1, quantized.group_size))[..., 0]
    value = first.float().abs() * quantized.scale[ternary].float()
    return int(((low == high) & (high > _NOT_ZERO) & ((value - high).abs() > 0.01 * high)).sum())


def check_weights(model: nn.Module, plan: Plan) -> None:
    """Raise CheckpointError that names every module without a quantizer and every tensor that is not finite."""
    problems = []
    for entry in plan.quantized:
        try:
            _trained_layer(model, entry)
        except CheckpointError as error:
            problems.append(str(error))
    problems += [
        f"{name}: holds NaN or infinite values; nothing can be packed from it"
        for name, tensor in model.named_parameters()
        if not tensor.is_meta and not bool(torch.isfinite(tensor).all())
    ]
    if problems:
        raise CheckpointError("\n".join(problems))


def unquantized_dtype(config: Any) -> torch.dtype:
    """What parameters that are not quantized are rounded to: the 16-bit dtype of the base model, bfloat16 of a float32.

    Args:
        config: of the base model, or of a model in training, whose `quantization_config` remembers it.
    """
    stored: Any = getattr(config, "quantization_config", None) or {}
    content = stored if isinstance(stored, Mapping) else stored.to_dict()
    if "unquantized_dtype" in content:
        return getattr(torch, content["unquantized_dtype"])  # type: ignore[no-any-return]
    return torch.float16 if getattr(config, "dtype", None) == torch.float16 else torch.bfloat16


def unquantized_tensors(
    model: nn.Module,
    owners: Mapping[str, Layout],
    store: Callable[[Tensors], object],
    *,
    dtype: torch.dtype = torch.bfloat16,
    weights: StoredWeights | None = None,
) -> list[str]:
    """Everything else under its own name, a shared tensor once, in the narrowest dtype that holds it exactly.

    Args:
        model: the model.
        owners: modules whose weight is packed.
        store: takes each tensor by its name, on the CPU.
        dtype: the 16-bit dtype to store it in where both hold it.
        weights: as for `pack_modules`.

    Returns:
        The names of those that no 16-bit float holds (they keep their dtype).
    """
    packed = {id(getattr(find_layer(model, name), "weight", None)) for name in owners}
    wide = []
    for name, parameter in model.named_parameters():
        if id(parameter) not in packed:
            value = weights.read(name) if weights else parameter.detach()
            stored = narrowest(value, dtype).cpu().contiguous()
            store({name: stored})
            if stored.is_floating_point() and stored.itemsize > 2:
                wide.append(name)
    persistent = model.state_dict().keys()
    for name, buffer in model.named_buffers():
        if name in persistent:
            store({name: buffer.detach().cpu().clone()})
    return wide


def narrowest(tensor: Tensor, preferred: torch.dtype = torch.bfloat16) -> Tensor:
    """The tensor in bfloat16 or float16 if one of them holds every value of it, else unchanged."""
    if not tensor.is_floating_point() or tensor.itemsize <= 2:
        return tensor
    for dtype in (preferred, torch.bfloat16, torch.float16):
        rounded = tensor.to(dtype)
        if torch.equal(rounded.to(tensor.dtype), tensor):
            return rounded
    return tensor


def round_unquantized_(model: nn.Module, dtype: torch.dtype | None = None) -> nn.Module:
    """Round every parameter that is not quantized to what `dtype` holds; parameters keep their own dtype.

    Called before the last evaluation of a float32 student, so that what is evaluated is what a checkpoint stores.

    Args:
        model: with a plan applied.
        dtype: the 16-bit dtype of the base model; None asks `unquantized_dtype(model.config)`.
    """
    dtype = dtype or unquantized_dtype(getattr(model, "config", None))
    latent = {id(layer.weight) for layer in trained_layers(model)}
    with torch.no_grad():
        for parameter in model.parameters():
            if id(parameter) not in latent and parameter.is_floating_point():
                rounded = parameter.to(dtype).to(parameter.dtype)
                if not torch.equal(rounded, parameter):
                    parameter.data = rounded  # a teacher may share the memory of the old values
    return model


def _trained_layer(model: nn.Module, entry: ModulePlan) -> tuple[LayerKind, Any]:
    layer: Any = find_layer(model, entry.name)
    if layer is None:
        raise CheckpointError(f"{entry.name}: the model has no such module; the plan was made for another one")
    kind = kind_of(layer)
    if kind is None or kind.quantizer(layer) is None:
        raise CheckpointError(f"{entry.name}: {type(layer).__name__} has no quantizer; apply the plan before packing")
    if tuple(layer.weight.shape) != entry.shape:
        raise CheckpointError(f"{entry.name}: weight is {list(layer.weight.shape)}, the plan says {list(entry.shape)}")
    return kind, layer
