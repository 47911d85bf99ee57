"""What a recipe does to a model, from shapes alone: module, rule, quantizer, bits, bytes, before a weight is loaded."""

from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from math import prod
from typing import Any

from torch import nn

from edgerazor.core.blocks import block_shape, block_widths
from edgerazor.core.contracts import ArchitectureAdapter, Quantizer
from edgerazor.core.layers.experts import FusedMatrices
from edgerazor.core.packing import packed_bytes
from edgerazor.core.plan_notes import left_out_notes, shared_weight_notes
from edgerazor.core.registry import Registry
from edgerazor.core.tensor import mean_bits
from edgerazor.errors import PlanError
from edgerazor.schemas.base import nearest
from edgerazor.schemas.components import QuantizerParams
from edgerazor.schemas.quantization import QuantizationSection


@dataclass(frozen=True)
class ModulePlan:
    """One module and what becomes of it.

    Attributes:
        name: full name of the module.
        kind: "linear", "embedding", or "experts" for the matrices of all experts in one parameter, which `name` is
            then the name of.
        shape: of its weight, `[out_features, in_features]`, or `[experts, rows, columns]`.
        rule: index of the weight rule that took it.
        params: the quantizer's parameters; None leaves the module at 16 bit.
        widths: `{qmax: number of weights}`.
        stored_widths: the same as a file of whole rows holds them; wider where widths mix inside a row.
        symmetric: False if codes reach -qmax-1.
        tied_to: name of the module that owns the weight, if it is not this one.
    """

    name: str
    kind: str
    shape: tuple[int, ...]
    rule: int
    params: QuantizerParams | None
    widths: Mapping[int, int]
    stored_widths: Mapping[int, int]
    symmetric: bool = True
    tied_to: str | None = None

    @property
    def group_size(self) -> int:
        """Columns per scale."""
        return (self.params.group_size if self.params else None) or self.shape[-1]

    @property
    def weights(self) -> int:
        """Number of weights."""
        return prod(self.shape)

    @property
    def parameter_name(self) -> str:
        """Full name of the parameter that the codes are made from."""
        return self.name if self.kind == "experts" else f"{self.name}.weight"

    @property
    def nominal_bits(self) -> float:
        """Bits per weight of the codes: 1.58 for ternary; 16 where it is not quantized."""
        return mean_bits(self.widths, self.symmetric) if self.params else 16.0

    @property
    def effective_bits(self) -> float:
        """Nominal bits plus 16 bits of scale per group."""
        return self.nominal_bits + 16 / self.group_size if self.params else 16.0

    @property
    def bytes(self) -> int:
        """Bytes in a packed checkpoint; 0 for a tied module, whose weight is stored once."""
        if self.tied_to:
            return 0
        if not self.params:
            return 2 * self.weights
        return packed_bytes(self.shape, self.stored_widths, self.group_size, symmetric=self.symmetric)


@dataclass(frozen=True)
class Plan:
    """The whole model under a recipe.

    Attributes:
        modules: every module that a rule took, in model order.
        rest: `{parameter name: number of weights}` of everything else, kept at 16 bit.
        matrices_left_out: parameters among `rest` with two or more axes, which lower the coverage.
        notes: what a reader should know, one line each.
        activations, kv_cache: parameters of their quantizers, or None.
    """

    modules: tuple[ModulePlan, ...]
    rest: Mapping[str, int]
    matrices_left_out: tuple[str, ...]
    notes: tuple[str, ...]
    activations: QuantizerParams | None
    kv_cache: QuantizerParams | None

    @property
    def quantized(self) -> list[ModulePlan]:
        """Modules that own a quantized weight; tied ones are counted where the weight lives."""
        return [module for module in self.modules if module.params and not module.tied_to]

    @property
    def parameters(self) -> int:
        """All parameters, a tied one counted once."""
        return sum(self.rest.values()) + sum(module.weights for module in self.modules if not module.tied_to)

    @property
    def quantized_parameters(self) -> int:
        return sum(module.weights for module in self.quantized)

    @property
    def coverage(self) -> float:
        """Share of the parameters that are quantized."""
        return self.quantized_parameters / self.parameters

    @property
    def effective_bits(self) -> float:
        """Mean bits per quantized weight, scales included."""
        total = sum(module.weights * module.effective_bits for module in self.quantized)
        return total / max(self.quantized_parameters, 1)

    @property
    def nominal_bits(self) -> float:
        """Mean bits per quantized weight, codes alone."""
        return sum(module.weights * module.nominal_bits for module in self.quantized) / max(
            self.quantized_parameters, 1
        )

    @property
    def bytes(self) -> int:
        """Bytes of all tensors in a packed checkpoint."""
        return sum(module.bytes for module in self.modules) + 2 * sum(self.rest.values())

    @property
    def compression(self) -> float:
        """16-bit size over effective bits, as published (METHOD 2.4); the file on disk is a little larger."""
        bits = sum(module.weights * module.effective_bits for module in self.quantized)
        return 16 * self.parameters / (bits + 16 * (self.parameters - self.quantized_parameters))


def build_plan(
    model: nn.Module, quantization: QuantizationSection, *, adapter: ArchitectureAdapter, registry: Registry
) -> Plan:
    """Match rules to modules and check every shape; `model` may be on the meta device.

    Raises:
        PlanError: with one line per problem: a shape that does not divide, a rule or glob that matches nothing, tied
            modules whose rules disagree.
    """
    return _Planner(model, quantization, adapter, registry).plan()


class _Planner:
    def __init__(
        self, model: nn.Module, quantization: QuantizationSection, adapter: ArchitectureAdapter, registry: Registry
    ):
        self.model, self.quantization = model, quantization
        self.candidates = dict(adapter.quantizable(model))
        self.why_left_out = getattr(adapter, "why_left_out", None)
        self.quantizers: list[Quantizer | None] = [
            registry.build(rule.quantizer) if rule.quantizer else None for rule in quantization.weights
        ]
        self.activation = registry.build(quantization.activations) if quantization.activations else None
        self.kv = registry.build(quantization.kv_cache) if quantization.kv_cache else None
        self.problems: list[str] = []

    def plan(self) -> Plan:
        self._check_activations()
        owners: dict[int, str] = {}
        taken: dict[str, ModulePlan] = {}
        for name, module in self.candidates.items():
            rule = self._first_rule(name)
            if rule is None:
                continue
            tied_to = owners.setdefault(id(module.weight), name)
            taken[name] = self._module(name, module, rule, None if tied_to == name else tied_to)
        self._check_rules(set(taken))
        self._check_ties(taken)
        if self.problems:
            raise PlanError("\n".join(self.problems))
        owned = {id(self.candidates[name].weight) for name in taken}
        quantized = {id(self.candidates[name].weight) for name, module in taken.items() if module.params}
        rest = {name: value for name, value in self.model.named_parameters() if id(value) not in owned}
        return Plan(
            tuple(taken.values()),
            {name: value.numel() for name, value in rest.items()},
            tuple(name for name, value in rest.items() if value.ndim > 1),
            (
                *left_out_notes(self.model, self.candidates, rest, why=self.why_left_out),
                *shared_weight_notes(self.model, self.candidates, quantized),
            ),
            self.quantization.activations,
            self.quantization.kv_cache,
        )

    def _first_rule(self, name: str) -> int | None:
        for index, rule in enumerate(self.quantization.weights):
            if any(fnmatchcase(name, pattern) for pattern in rule.match):
                return index
        return None

    def _module(self, name: str, module: Any, rule: int, tied_to: str | None) -> ModulePlan:
        kind, blocks = "embedding" if isinstance(module, nn.Embedding) else "linear", 1
        if isinstance(module, FusedMatrices):
            kind, blocks = "experts", module.blocks
        quantizer, params = self.quantizers[rule], self.quantization.weights[rule].quantizer
        shape = tuple(module.weight.shape)
        widths: Mapping[int, int] = {}
        stored: Mapping[int, int] = {}
        if quantizer is not None:
            one = block_shape(shape, blocks)
            if self._fits(name, lambda: quantizer.check_shape(one)):
                widths = block_widths(quantizer.widths(one), blocks)
                stored = widths
                if hasattr(quantizer, "stored_widths"):
                    stored = block_widths(quantizer.stored_widths(one), blocks)
            if kind != "embedding" and self.activation is not None:
                activation = self.activation
                self._fits(f"{name}: activations", lambda: activation.check_shape((1, shape[-1])))
        symmetric = getattr(quantizer, "symmetric", True)
        return ModulePlan(name, kind, shape, rule, params, widths, stored, symmetric, tied_to)

    def _fits(self, where: str, check: Any) -> bool:
        """Whether a shape passes; if not, the problem is kept."""
        try:
            check()
        except PlanError as error:
            self.problems.append(f"{where}: {error}")
            return False
        return True

    def _check_activations(self) -> None:
        for key, quantizer in (("activations", self.activation), ("kv_cache", self.kv)):
            if quantizer is not None and not quantizer.rows_independent:
                self.problems.append(
                    f"quantization.{key}: its rows depend on each other, so a token would depend on its neighbours; "
                    "use int or another quantizer that works row by row"
                )
        if self.kv is not None:
            from edgerazor.core.layers.attention import attention_modules

            widths: set[Any] = {module.head_dim for _, module in attention_modules(self.model)}
            for head_dim in sorted(widths):
                self._fits(
                    f"quantization.kv_cache: head_dim {head_dim}",
                    lambda width=head_dim: self.kv.check_shape((1, width)),
                )

    def _check_rules(self, taken: set[str]) -> None:
        for index, rule in enumerate(self.quantization.weights):
            where = f"quantization.weights[{index}].match"
            for pattern in rule.match:
                if not any(fnmatchcase(name, pattern) for name in self.candidates):
                    self.problems.append(f"{where}: '{pattern}' matches no module{nearest(pattern, self.candidates)}")
            mine = [name for name in self.candidates if self._first_rule(name) == index]
            matched = [name for name in self.candidates if any(fnmatchcase(name, one) for one in rule.match)]
            if matched and not mine:
                self.problems.append(
                    f"{where}: all modules it matches are taken by earlier rules; the first match wins"
                )

    def _check_ties(self, taken: Mapping[str, ModulePlan]) -> None:
        groups: dict[int, list[str]] = {}
        for name, module in self.candidates.items():
            groups.setdefault(id(module.weight), []).append(name)
        for names in groups.values():
            chosen = {name: taken[name].params if name in taken else None for name in names}
            if len({repr(params) for params in chosen.values()}) > 1:
                said = "; ".join(
                    f"{name}: {params.summary() if params else '16 bit'}" for name, params in chosen.items()
                )
                self.problems.append(
                    f"tied modules share one weight but not one quantizer ({said}); give them the same rule"
                )
