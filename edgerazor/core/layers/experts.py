"""Experts of a mixture in one tensor `[experts, rows, columns]`: what a rule may take, and how they then compute.

transformers holds all experts of a layer in two parameters of one module, so there is no linear layer to swap. The
parameters keep their names and places; the module that owns them changes class.
"""

from collections.abc import Iterator
from functools import cache
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from edgerazor.core.contracts import Quantizer
from edgerazor.core.layers.kind import LayerKind
from edgerazor.core.layers.matrices import Matrices, MatricesQuantizer
from edgerazor.core.layers.packed import PackedWeight, select_rows
from edgerazor.core.layers.quantized_linear import InputSlot, differentiable_weight
from edgerazor.core.layers.weight_cache import WeightCache
from edgerazor.errors import PlanError

# Parameters of an expert module, with the number of logical matrices that one expert has in each.
FUSED = {"gate_up_proj": 2, "down_proj": 1}


class FusedMatrices(nn.Module):
    """Stands for a parameter `[experts, rows, columns]` of another module where modules are listed; it owns nothing.

    Attributes:
        leaf: name of the parameter.
    """

    def __init__(self, owner: nn.Module, leaf: str):
        super().__init__()
        # Inside a list, so that it is not registered as a child.
        self._owner, self.leaf = [owner], leaf

    @property
    def owner(self) -> nn.Module:
        return self._owner[0]

    @property
    def weight(self) -> nn.Parameter:
        """The parameter itself."""
        return getattr(self.owner, self.leaf)  # type: ignore[no-any-return]

    @property
    def weight_quantizer(self) -> Quantizer | None:
        """What quantizes it in training; None before a plan is applied."""
        found: Quantizer | None = getattr(self.owner, "weight_quantizers", {}).get(self.leaf)
        return found


def fused_experts(model: nn.Module) -> Iterator[tuple[str, FusedMatrices]]:
    """Every fused expert parameter that can be quantized, by its full name."""
    for name, module in model.named_modules():
        if _is_experts(module):
            for leaf in FUSED:
                if leaf in module._parameters:
                    yield f"{name}.{leaf}", FusedMatrices(module, leaf)


class PackedMatrices(PackedWeight):
    """Equal matrices one after the other, as a mixture's experts are held; indexing gives one of them `[rows, C]`."""

    count: int = 1

    def __getitem__(self, index: int) -> Tensor:
        each = self.rows // self.count
        if self.compute == "cached":
            return self.weight[index * each : (index + 1) * each]
        chosen = torch.arange(index * each, (index + 1) * each, device=self.weight_scale.device)
        rows = select_rows(self.layout, self.packed_tensors, chosen, self.columns)
        return rows.dequantize(self.value_dtype)


class QuantExperts:
    """Mixed into the class of a model's experts: weights and inputs are quantized, the routing is the model's own."""

    weight_quantizers: dict[str, Quantizer]
    input_quantizers: dict[str, Quantizer | None]
    original: ClassVar[type[nn.Module]]
    weight_cache: WeightCache | None = None

    def forward(self, hidden_states: Tensor, top_k_index: Tensor, top_k_weights: Tensor) -> Tensor:
        """Weighted sum of the chosen experts.

        Args:
            hidden_states: `[tokens, hidden]`.
            top_k_index: int64 `[tokens, k]`, the experts of each token.
            top_k_weights: `[tokens, k]`.
        """
        gate_up, down = self._values("gate_up_proj"), self._values("down_proj")
        inputs = self._quantized_input("gate_up_proj", hidden_states)
        result = torch.zeros_like(hidden_states)
        for expert in top_k_index.unique().tolist():
            token, place = torch.where(top_k_index == expert)
            inner = self._apply_gate(functional.linear(inputs[token], gate_up[expert]))  # type: ignore[attr-defined]
            inner = self._quantized_input("down_proj", inner)
            outer = functional.linear(inner, down[expert]) * top_k_weights[token, place, None]
            result.index_add_(0, token, outer.to(result.dtype))
        return result

    def _values(self, leaf: str) -> Any:
        """The matrices of all experts by index, quantized as this forward pass uses them."""
        held = getattr(self, leaf)
        if isinstance(held, PackedMatrices):
            return held
        return self._fake_quantized(held, leaf).unbind()  # indexing would make a gradient of all experts for each

    def _fake_quantized(self, held: Tensor, leaf: str) -> Tensor:
        quantizer: Any = self.weight_quantizers.get(leaf)
        if quantizer is not None:
            quantizer = MatricesQuantizer(quantizer, _matrices(held, leaf))
        return differentiable_weight(held, quantizer, self.weight_cache, held.dtype)

    def _quantized_input(self, leaf: str, x: Tensor) -> Tensor:
        quantizer = self.input_quantizers.get(leaf)
        return x if quantizer is None else quantizer.fake_quantize(x)


@cache
def _quantized_class(original: type[nn.Module]) -> type[nn.Module]:
    return type(f"Quant{original.__name__}", (QuantExperts, original), {"original": original})


def _as_quantized(owner: Any) -> Any:
    if not isinstance(owner, QuantExperts):
        if "forward" in owner.__dict__:
            raise PlanError(f"{type(owner).__name__}: its forward was replaced; apply the plan first")
        original: Any = type(owner)
        owner.__class__ = _quantized_class(original)
        owner.weight_quantizers, owner.input_quantizers = {}, {}
    return owner


def _is_experts(module: Any) -> bool:
    """Whether a module is a gated mixture as transformers builds it: gate before up, rows before columns, no biases."""
    parts = [getattr(module, leaf, None) for leaf in FUSED]
    if not all(isinstance(part, nn.Parameter) and part.ndim == 3 for part in parts):
        return isinstance(module, QuantExperts)
    usual = {"has_gate": True, "has_bias": False, "is_transposed": False, "is_concatenated": True}
    return hasattr(module, "_apply_gate") and all(getattr(module, key, value) == value for key, value in usual.items())


def _matrices(held: Tensor, leaf: str) -> Matrices:
    """The matrices in a parameter `[experts, rows, columns]`: gate and up projection stand alone (METHOD 2.1)."""
    return Matrices.along_last_axis(held.shape, count=held.shape[0] * FUSED[leaf])


class Experts(LayerKind):
    """All experts of a mixture in one parameter, which has no module of its own: `FusedMatrices` stands for it."""

    name: ClassVar = "experts"
    packed: ClassVar = PackedMatrices

    def matches(self, layer: nn.Module) -> bool:
        return isinstance(layer, FusedMatrices)

    def find(self, model: nn.Module, name: str) -> nn.Module | None:
        owner, _, leaf = name.rpartition(".")
        try:
            parent = model.get_submodule(owner)
        except AttributeError:
            return None
        fused = leaf in FUSED and leaf in parent._parameters and _is_experts(parent)
        return FusedMatrices(parent, leaf) if fused else None

    def layers(self, model: nn.Module) -> Iterator[nn.Module]:
        return (matrices for _, matrices in fused_experts(model))

    def owner(self, layer: FusedMatrices) -> nn.Module:
        return layer.owner

    def parameter_name(self, name: str) -> str:
        return name

    def matrices(self, layer: FusedMatrices) -> Matrices:
        return _matrices(layer.weight, layer.leaf)

    def make_trainable(
        self, layer: FusedMatrices, quantizer: Quantizer, activation: Quantizer | None, slot: InputSlot | None
    ) -> None:
        owner = _as_quantized(layer.owner)
        owner.weight_quantizers[layer.leaf] = quantizer
        owner.input_quantizers[layer.leaf] = activation

    def complete(self, packed: Any, layer: FusedMatrices, activation: Quantizer | None) -> None:
        packed.count = layer.weight.shape[0]

    def put_packed(self, model: nn.Module, name: str, packed: nn.Module, activation: Quantizer | None) -> None:
        parent, _, leaf = name.rpartition(".")
        owner = _as_quantized(model.get_submodule(parent))
        delattr(owner, leaf)
        setattr(owner, leaf, packed)
        owner.input_quantizers[leaf] = activation
        owner._is_hf_initialized = True  # transformers would fill the parameter with random numbers

    def values(self, packed: Any, dtype: torch.dtype) -> Tensor:
        return super().values(packed, dtype).unflatten(0, (packed.count, -1))

    def restore(self, model: nn.Module, name: str, weight: nn.Parameter) -> None:
        parent, _, leaf = name.rpartition(".")
        owner: Any = model.get_submodule(parent)
        delattr(owner, leaf)
        setattr(owner, leaf, weight)
        owner.input_quantizers.pop(leaf, None)
        if not any(isinstance(getattr(owner, other), PackedMatrices) for other in FUSED):
            owner.__class__ = owner.original

    def leave_inputs(self, module: nn.Module) -> None:
        if isinstance(module, QuantExperts):
            module.input_quantizers.clear()

    def add_up_alike(self, packed: nn.Module, plain: Any) -> None:
        if any(isinstance(module, QuantExperts) for module in packed.modules()):
            plain.set_experts_implementation("eager")
