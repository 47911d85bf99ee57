"""What a recipe does to a model, from shapes alone: module, rule, quantizer, bits, bytes, before a weight is loaded."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from torch import nn

from edgerazor.core.contracts import ArchitectureAdapter, ModelFacts, Quantizer
from edgerazor.core.group_sizes import columns_by_rule, fit_group_sizes
from edgerazor.core.layers.attention import head_widths
from edgerazor.core.layers.kind import LayerKind, of_whole_rows
from edgerazor.core.layers.matrices import Matrices
from edgerazor.core.layers.table import LAYER_KINDS, kind_of
from edgerazor.core.module_plan import ModulePlan
from edgerazor.core.plan_notes import WholeRows, bypass_reason, left_out_notes, shared_weight_notes, whole_row_notes
from edgerazor.core.registry import Registry
from edgerazor.core.rules import MatchedRules
from edgerazor.errors import PlanError
from edgerazor.schemas.components import QuantizerParams
from edgerazor.schemas.quantization import QuantizationSection


@dataclass(frozen=True)
class Plan:
    """The whole model under a recipe.

    Attributes:
        modules: every module that a rule took, in model order.
        rest: `{parameter name: number of weights}` of everything else, kept at 16 bit.
        matrices_left_out: parameters among `rest` with two or more axes, which lower the coverage.
        notes: what a reader should know, one line each.
        quantization: the section of the recipe, with group sizes that fit the model.
    """

    modules: tuple[ModulePlan, ...]
    rest: Mapping[str, int]
    matrices_left_out: tuple[str, ...]
    notes: tuple[str, ...]
    quantization: QuantizationSection

    @property
    def activations(self) -> QuantizerParams | None:
        """Parameters of the quantizer of activations."""
        return self.quantization.activations

    @property
    def kv_cache(self) -> QuantizerParams | None:
        """Parameters of the quantizer of keys and values."""
        return self.quantization.kv_cache

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
    """Makes one plan; problems are collected in `problems` and raised together."""

    def __init__(
        self, model: nn.Module, quantization: QuantizationSection, adapter: ArchitectureAdapter, registry: Registry
    ):
        self.model = model
        self.candidates: dict[str, Any] = dict(adapter.quantizable(model))
        self.adapter = adapter
        self.rules = MatchedRules(quantization.weights, list(self.candidates))
        heads = head_widths(model) if quantization.kv_cache else ()
        columns = columns_by_rule(self.candidates, self.rules.rule_of)
        quantization, self.notes = fit_group_sizes(quantization, columns, heads)
        self.quantization = quantization
        self.quantizers: list[Quantizer | None] = [
            registry.build(rule.quantizer) if rule.quantizer else None for rule in quantization.weights
        ]
        self.activation = registry.build(quantization.activations) if quantization.activations else None
        self.kv = registry.build(quantization.kv_cache) if quantization.kv_cache else None
        self.problems: list[str] = []
        self.whole_rows: list[WholeRows] = []

    def plan(self) -> Plan:
        self._check_activations()
        modules = self._modules()
        self.problems += self.rules.problems()
        self._check_ties(modules)
        if self.problems:
            raise PlanError("\n".join(self.problems))
        owned = {id(self.candidates[name].weight) for name in modules}
        quantized = {id(self.candidates[name].weight) for name, module in modules.items() if module.params}
        rest = {name: value for name, value in self.model.named_parameters() if id(value) not in owned}
        return Plan(
            tuple(modules.values()),
            {name: value.numel() for name, value in rest.items()},
            tuple(name for name, value in rest.items() if value.ndim > 1),
            (
                *self.notes,
                *whole_row_notes(self.whole_rows),
                *left_out_notes(self.model, self.candidates, rest, why=self.adapter.why_left_out),
                *shared_weight_notes(self.model, self.candidates, quantized),
            ),
            self.quantization,
        )

    def _modules(self) -> dict[str, ModulePlan]:
        """Every module that a rule takes; the first one that holds a weight owns it, others are tied to it."""
        owners: dict[int, str] = {}
        modules: dict[str, ModulePlan] = {}
        for name, rule in self.rules.rule_of.items():
            owner = owners.setdefault(id(self.candidates[name].weight), name)
            module = self._module(name, rule, None if owner == name else owner)
            if module is not None:
                modules[name] = module
        return modules

    def _module(self, name: str, rule: int, tied_to: str | None) -> ModulePlan | None:
        layer, quantizer = self.candidates[name], self.quantizers[rule]
        kind = kind_of(layer)
        if quantizer is not None and (reason := bypass_reason(self.model, name)):
            self.problems.append(f"{name}: {reason}")
            return None
        if kind is None:
            kinds = ", ".join(kind.name for kind in LAYER_KINDS)
            self.problems.append(f"{name}: is a {type(layer).__name__}, which is of no kind that is known ({kinds})")
            return None
        matrices = kind.matrices(layer)
        quantizer = self._for_rows(name, quantizer, kind, matrices.columns)
        widths: Mapping[int, int] = {}
        stored: Mapping[int, int] = {}
        if quantizer is not None:
            matrices = self._parts(name, matrices)
            fit = [self._fits(name, quantizer, shape) for shape in matrices.shapes]
            if all(fit):
                widths = matrices.widths_of_all(quantizer.widths)
                stored = matrices.widths_of_all(quantizer.stored_widths)
            if kind.quantizes_inputs and self.activation is not None:
                self._input_fits(name, kind, layer, self.activation)
        params = None if quantizer is None else quantizer.params
        symmetric = quantizer is None or quantizer.symmetric
        return ModulePlan(name, kind.name, matrices, rule, params, widths, stored, symmetric, tied_to)

    def _for_rows(self, name: str, quantizer: Quantizer | None, kind: LayerKind, columns: int) -> Quantizer | None:
        """The quantizer of a rule for one layer: rows that no usual group divides have one scale, with a note."""
        if quantizer is None or not kind.rows_may_be_whole:
            return quantizer
        fitting = of_whole_rows(quantizer, columns)
        if fitting is not quantizer:
            self.whole_rows.append(WholeRows(name, columns, quantizer.params.group_size))
        return fitting

    def _input_fits(self, name: str, kind: LayerKind, layer: Any, activation: Quantizer) -> None:
        columns = kind.input_columns(layer)
        fitting = of_whole_rows(activation, columns) if kind.rows_may_be_whole else activation
        self._fits(f"{name}: activations", fitting, (1, columns))

    def _parts(self, name: str, matrices: Matrices) -> Matrices:
        """The matrices that the family says lie in one, such as q, k and v."""
        if matrices.count > 1:
            return matrices
        parts = self.facts.fused.get(self.adapter.role(f"{name}.weight").kind)
        return matrices if parts is None else matrices.split([rows for _, rows in parts])

    @cached_property
    def facts(self) -> ModelFacts:
        """Facts of the model, by its own configuration."""
        return self.adapter.facts(self.model.config)

    def _fits(self, where: str, quantizer: Quantizer, shape: tuple[int, int]) -> bool:
        """Whether a quantizer takes a shape; if not, the problem is kept."""
        try:
            quantizer.check_shape(shape)
        except PlanError as error:
            self.problems.append(f"{where}: {error}")
            return False
        return True

    def _check_activations(self) -> None:
        rules = zip(self.quantization.weights, self.quantizers, strict=True)
        named = [(f"weights: {', '.join(rule.match)}", quantizer) for rule, quantizer in rules]
        for key, quantizer in (*named, ("kv_cache", self.kv)):
            if quantizer is not None and not quantizer.signed:
                self.problems.append(
                    f"quantization.{key}: {quantizer.params.name} is for activations alone, its codes are not stored"
                )
        for key, quantizer in (("activations", self.activation), ("kv_cache", self.kv)):
            if quantizer is not None and not quantizer.rows_independent:
                self.problems.append(
                    f"quantization.{key}: its rows depend on each other, so a token would depend on its neighbours; "
                    "use int or another quantizer that works row by row"
                )
        if self.kv is not None:
            for head_dim in head_widths(self.model):
                self._fits(f"quantization.kv_cache: head_dim {head_dim}", self.kv, (1, head_dim))

    def _check_ties(self, modules: Mapping[str, ModulePlan]) -> None:
        groups: dict[int, list[str]] = {}
        for name, layer in self.candidates.items():
            groups.setdefault(id(layer.weight), []).append(name)
        for names in groups.values():
            chosen = {name: modules[name].params if name in modules else None for name in names}
            if len({repr(params) for params in chosen.values()}) > 1:
                said = "; ".join(
                    f"{name}: {params.summary() if params else '16 bit'}" for name, params in chosen.items()
                )
                self.problems.append(
                    f"tied modules share one weight but not one quantizer ({said}); give them the same rule"
                )
