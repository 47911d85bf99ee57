"""`allocate`: sensitivities, options, the best assignment under the target, and what it is worth without training."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import torch
from torch import Tensor, nn

from edgerazor.allocate.candidates import Unit, body_rules, tie_modules, unreached_note
from edgerazor.allocate.options import HUNDREDTHS, Option, Options
from edgerazor.allocate.sensitivity import measure_sensitivity, row_losses
from edgerazor.allocate.solve import solve
from edgerazor.allocate.target import budget_of, exact_target
from edgerazor.allocate.write_recipe import assigned_section
from edgerazor.core.apply import apply_plan
from edgerazor.core.contracts import Quantizer
from edgerazor.core.layers.table import find_layer
from edgerazor.core.module_plan import ModulePlan
from edgerazor.core.plan import Plan, build_plan
from edgerazor.core.registry import Registry
from edgerazor.data import Collator, Data, load_data
from edgerazor.data.progress import show_progress
from edgerazor.errors import DataError, PlanError
from edgerazor.evaluate.checkpoints import EvaluationResult, evaluate_model
from edgerazor.models.load import Models, fitted_recipe, pick_device
from edgerazor.schemas.allocation import DEFAULT_CANDIDATES
from edgerazor.schemas.quantization import QuantizationSection
from edgerazor.schemas.recipe import Recipe

MEASURED_BATCHES = 8


@dataclass(frozen=True)
class AllocationSettings:
    """What to aim for and what to choose from.

    Attributes:
        target_bits: nominal bits per weight of the body, the matrices of rules with `sqmp` or for `*`; None for what
            their own quantizers come to.
        batches: calibration batches, of the recipe's training data and batch size.
        candidates: quantizers to choose from, see `candidate_quantizer`.
        free: q, k, v of a layer need not agree, nor gate and up.
        rows: choose single rows instead of `candidates`; a matrix is then ternary with int rows where they help most.
        measure: also round and measure on held-out data.
        seed: of the labels drawn for the sensitivities.
    """

    target_bits: float | None
    batches: int = 16
    candidates: tuple[str, ...] = DEFAULT_CANDIDATES
    free: bool = False
    rows: bool = False
    measure: bool = True
    seed: int = 0


@dataclass(frozen=True)
class Assignment:
    """Quantizers of the body, and what they come to.

    Attributes:
        quantization: the whole section.
        bits: nominal bits per weight of the body.
        bytes: of a packed checkpoint of the whole model.
        predicted: KL that rounding the body adds, nats per token, to second order.
        measured: held-out figures of the rounded model, embeddings, activations and all; None if not asked for.
    """

    quantization: QuantizationSection
    bits: float
    bytes: int
    predicted: float
    measured: EvaluationResult | None


@dataclass(frozen=True)
class AllocationResult:
    """The recipe with the bits allocated, and what they were chosen from.

    Attributes:
        recipe: the recipe with explicit weight rules.
        choices: what each unit got.
        allocated, uniform: the allocation, and the same target spent evenly (`sqmp`, every n-th row).
        uniform_label: the candidate that `uniform` gives every matrix.
        target: nominal bits aimed for.
        tokens: predicted tokens the sensitivities were measured on.
        notes: what a reader should know, one line each.
    """

    recipe: Recipe
    choices: Sequence[tuple[Unit, Option]]
    allocated: Assignment
    uniform: Assignment
    uniform_label: str
    target: float
    tokens: int
    notes: Sequence[str]


def allocate(
    recipe: Recipe, settings: AllocationSettings, *, registry: Registry, data: Data | None = None
) -> AllocationResult:
    """Measure, choose, and compare with the uniform mix of the same size.

    Args:
        recipe: with a `data` section; its body is what is allocated, everything else stays as it says.
        settings: target and candidates.
        registry: loaded plugins.
        data: rows that `load_data` made from the recipe's data section before; None loads them now.

    Raises:
        RecipeError: no body, an unknown candidate, or a target below what is possible.
        DataError: there is no data, or too little.
        PlanError: the recipe or the target does not fit the model.
        CheckpointError: the model cannot be loaded.
    """
    if recipe.data is None:
        raise DataError("the recipe has no data section; sensitivities are measured on its training data")
    body_rules(recipe.quantization)
    if settings.target_bits is not None:
        exact_target(settings.target_bits)
    models = Models(recipe.model, registry)
    if data is None:
        data = load_data(recipe.data, models.student.tokenizer, vocabulary_size=models.student.vocabulary_size)
    return _Allocator(fitted_recipe(models, recipe), settings, models, data).run()


class _Allocator:
    def __init__(self, recipe: Recipe, settings: AllocationSettings, models: Models, data: Data):
        self.recipe, self.settings, self.models, self.data = recipe, settings, models, data
        self.registry, self.adapter = models.registry, models.student.adapter
        self.device = pick_device(use_cpu=recipe.training.use_cpu)
        model = models.student.load(torch.float32).to(self.device)
        self.model: nn.Module | None = model
        self.pad = getattr(model.config, "pad_token_id", None) or 0
        self.names = [name for name, _ in self.adapter.quantizable(model)]
        self.plan = self._plan(recipe.quantization, model)
        rules = body_rules(recipe.quantization)
        self.units = tie_modules(self.plan, rules, adapter=self.adapter, free=settings.free or settings.rows)
        self.unreached: list[Unit] = []
        if not self.units:
            raise PlanError("the body rules take no module of this model, so there is nothing to allocate")

    def run(self) -> AllocationResult:
        options, tokens = self._options()
        asked = self.settings.target_bits
        target, uniform_label = exact_target(self._own_bits() if asked is None else asked)
        best = self._best(options, budget_of(target, [unit.weights for unit in self.units]))
        even = [options.of_unit(unit, [uniform_label])[0] for unit in self.units]
        notes = [*options.notes, *unreached_note(self.unreached)]
        # Students and teacher need the memory that the model and its Fisher information take.
        del options
        self.model = None
        held_out, note = self._held_out()
        teacher = None if held_out is None else self.models.load_teacher(device=self.device)
        allocated, uniform = (self._assess(picks, teacher, held_out) for picks in (best, even))
        return AllocationResult(
            self.recipe.model_copy(update={"quantization": allocated.quantization}),
            list(zip(self.units, best, strict=True)),
            allocated,
            uniform,
            uniform_label,
            float(target),
            tokens,
            [*notes, *note],
        )

    def _own_bits(self) -> Fraction:
        """Nominal bits per weight of the body by the recipe's own rules."""
        own = [module for unit in self.units for module in unit.modules if not module.tied_to]
        size = sum(round(HUNDREDTHS * module.weights * module.nominal_bits) for module in own)
        return Fraction(size, HUNDREDTHS * sum(module.weights for module in own))

    def _options(self) -> tuple[Options, int]:
        """What builds options from the sensitivities, and the number of tokens these were measured on.

        Units that no gradient reaches, such as a tower for pictures, have no sensitivity: they are put aside.
        """
        assert self.model is not None
        body = [module for unit in self.units for module in unit.modules]
        layers: dict[str, Any] = {module.name: find_layer(self.model, module.name) for module in body}
        sensitivity = measure_sensitivity(
            self.model,
            {module.name: layers[module.name].weight for module in body if not module.tied_to},
            self._batches(),
            adapter=self.adapter,
            seed=self.settings.seed,
        )

        reached = {name for name, squares in sensitivity.fisher.items() if squares.any()}
        has_gradient = [any(module.name in reached for module in unit.modules) for unit in self.units]
        self.unreached = [unit for unit, measured in zip(self.units, has_gradient, strict=True) if not measured]
        self.units = [unit for unit, measured in zip(self.units, has_gradient, strict=True) if measured]
        if not self.units:
            raise PlanError("no gradient of the texts reaches the matrices of the body")

        def losses(module: ModulePlan, quantizer: Quantizer) -> Tensor:
            return row_losses(sensitivity.fisher[module.name], layers[module.name].weight, quantizer, module.matrices)

        rules = self.recipe.quantization.weights
        quantizers = {module.rule: rules[module.rule].quantizer for module in body}
        body_quantizers = {index: quantizer for index, quantizer in quantizers.items() if quantizer is not None}
        return Options(body_quantizers, losses, self.registry), sensitivity.tokens

    def _best(self, options: Options, budget: int) -> list[Option]:
        """The option of every unit with which the predicted loss is least.

        Raises:
            PlanError: the cheapest options exceed the budget.
        """
        found = [
            options.by_rows(unit)
            if self.settings.rows and options.can_list_rows(unit)
            else options.of_unit(unit, self.settings.candidates)
            for unit in self.units
        ]
        costs = [[option.cost for option in unit] for unit in found]
        cheapest = sum(map(min, costs))
        if cheapest > budget:
            bits, room = (size / HUNDREDTHS / sum(unit.weights for unit in self.units) for size in (cheapest, budget))
            raise PlanError(
                f"{room:.4g} bits: the narrowest candidates that fit take {bits:.4f} bits; "
                "raise the target or add narrower candidates"
            )
        chosen = solve(costs, [[option.loss for option in unit] for unit in found], budget)
        return [unit[index] for unit, index in zip(found, chosen, strict=True)]

    def _assess(self, picks: Sequence[Option], teacher: nn.Module | None, held_out: Any) -> Assignment:
        assignment = {
            module.name: params
            for unit, option in zip(self.units, picks, strict=True)
            for module, params in zip(unit.modules, option.quantizers, strict=True)
        }
        kept = [module for unit in self.unreached for module in unit.modules]
        assignment |= {module.name: module.params for module in kept if module.params is not None}
        rules_of = {module.name: module.rule for unit in (*self.units, *self.unreached) for module in unit.modules}
        section = assigned_section(self.recipe.quantization, rules_of, assignment, self.names)
        source = self.models.student
        student: Any = source.build_meta_model() if held_out is None else source.load(torch.float32)
        plan = self._plan(section, student)
        self._check_assigned(plan, assignment)
        measured = None
        if held_out is not None:
            apply_plan(student, plan, registry=self.registry)
            measured = evaluate_model(
                student.to(self.device),
                teacher,
                held_out,
                adapter=self.adapter,
                teacher_adapter=self.models.teacher_adapter,
                batch_size=self.recipe.evaluation.batch_size,
                batches=self.recipe.evaluation.batches or MEASURED_BATCHES,
                pad_token_id=self.pad,
            )
        weights = sum(unit.weights for unit in self.units)
        bits = sum(option.cost for option in picks) / HUNDREDTHS / weights
        return Assignment(section, bits, plan.bytes, sum(option.loss for option in picks), measured)

    def _plan(self, section: QuantizationSection, model: nn.Module) -> Plan:
        return build_plan(model, section, adapter=self.adapter, registry=self.registry)

    def _check_assigned(self, plan: Plan, assignment: Mapping[str, Any]) -> None:
        before = {module.name: module.params for module in self.plan.modules}
        for module in plan.modules:
            if module.params != assignment.get(module.name, before[module.name]):
                raise PlanError(f"{module.name}: the written rules give it {module.params}, not what was chosen")

    def _held_out(self) -> tuple[Any, list[str]]:
        """Rows to measure on; without held-out data, training rows that the sensitivities have not seen."""
        if not self.settings.measure:
            return None, []
        if self.data.held_out is not None:
            return self.data.held_out, []
        used = self.settings.batches * self.recipe.training.per_device_train_batch_size
        if used >= len(self.data.train):
            return None, ["nothing was measured: no data is held out, and the sensitivities took all rows"]
        rest = self.data.train.select(range(used, len(self.data.train)))
        return rest, ["no data is held out (data.held_out); measured on training rows that no sensitivity was taken on"]

    def _batches(self) -> Iterator[Mapping[str, Tensor]]:
        """The first rows of the training data, which are in a random order."""
        rows, size = self.data.train, self.recipe.training.per_device_train_batch_size
        collator, count = Collator(self.pad), min(len(rows), self.settings.batches * size)
        with show_progress("Measuring sensitivities", count) as advance:
            for start in range(0, count, size):
                batch = [rows[row] for row in range(start, min(start + size, count))]
                yield collator(batch)
                advance(len(batch))
