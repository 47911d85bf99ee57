"""The whole recipe, and reading it from YAML, JSON or a dict."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar

import yaml
from pydantic import Field, ValidationError, model_validator
from pydantic_core import InitErrorDetails

from edgerazor.errors import RecipeError
from edgerazor.schemas.base import Schema, nearest, problem
from edgerazor.schemas.components import Declarations, ExporterSlot
from edgerazor.schemas.data import DataSection
from edgerazor.schemas.distillation import DistillationSection
from edgerazor.schemas.evaluation import EvaluationSection
from edgerazor.schemas.files import read_mapping
from edgerazor.schemas.model import ModelSection
from edgerazor.schemas.overrides import apply_overrides, parse_overrides
from edgerazor.schemas.preset import PresetChoice, expand_preset, keep_written_sizes
from edgerazor.schemas.quantization import QuantizationSection
from edgerazor.schemas.training import STARTS, TrainingSection

SECTIONS = "sections such as model, data and quantization"
# Overrides of these decide what a preset fills in; all others change what it filled in.
SETTLED_FIRST = (("preset",), ("model",), ("training", "start"))


class WrittenBy(Schema):
    """Which versions resolved a recipe; filled in where a run or a checkpoint stores it."""

    title: ClassVar[str] = "written_by"

    edgerazor: str
    plugins: dict[str, str] = Field(default_factory=dict)


class Recipe(Schema):
    """Everything a run needs, in the order data flows: model, data, quantization, distillation, training, export."""

    title: ClassVar[str] = "the recipe"

    model: ModelSection
    preset: Annotated[
        PresetChoice | None,
        Field(
            description="Fills quantization and distillation where they are not written; ours also say how training "
            "begins."
        ),
    ] = None
    data: DataSection | None = None
    quantization: QuantizationSection
    distillation: Annotated[
        DistillationSection | None, Field(description="Absent: plain quantization-aware training.")
    ] = None
    training: TrainingSection = TrainingSection()
    evaluation: EvaluationSection = EvaluationSection()
    export: tuple[ExporterSlot, ...] = ()
    written_by: WrittenBy | None = None

    @model_validator(mode="after")
    def _sections_agree(self) -> "Recipe":
        faults = list(_contradictions(self))
        if faults:
            raise ValidationError.from_exception_data(
                self.title, [InitErrorDetails(type=problem(said), loc=place, input=None) for place, said in faults]
            )
        return self

    def to_dict(self) -> dict[str, Any]:
        """The resolved recipe as plain data: every default filled in; reading it again gives an equal recipe."""
        return self.model_dump(mode="json")

    def to_yaml(self) -> str:
        """The resolved recipe as YAML."""
        return yaml.safe_dump(self.to_dict(), sort_keys=False, width=120)


def _contradictions(recipe: Recipe) -> Iterator[tuple[tuple[str, ...], str]]:
    """What sections that are each valid ask of each other in vain: key path and message."""
    training, evaluation = recipe.training, recipe.evaluation
    for key in training.extra:
        if key in TrainingSection.model_fields:
            yield ("training", "extra", key), f"is a key of its own; write it under training: {{{key}: ...}}"
    texts = recipe.data is not None and recipe.data.task == "language_modeling"
    if texts and recipe.data and recipe.data.packing and recipe.distillation and recipe.distillation.on_policy:
        yield ("distillation", "on_policy"), "packed rows have no prompts of their own; set data.packing: false"
    if training.allocation is not None and training.start not in STARTS:
        yield ("training", "allocation"), "the checkpoint of training.start has widths already; set it to null"
    if recipe.data is not None and not texts:
        yield from _only_for_texts(recipe)
    if evaluation.every_steps and recipe.data is not None and recipe.data.held_out is None:
        yield (
            ("evaluation", "every_steps"),
            f"is {evaluation.every_steps}, but no data is held out to evaluate on; set data.held_out, or null here",
        )
    if training.load_best_model_at_end and evaluation.every_steps is None:
        yield (
            ("training", "load_best_model_at_end"),
            "needs evaluations during the run to tell which model is best; set evaluation.every_steps",
        )
    best = training.metric_for_best_model or ("loss" if training.load_best_model_at_end else None)
    measured = (*evaluation.metrics, *(("top1", "top5") if recipe.data is not None and not texts else ()))
    if best is not None and best.removeprefix("eval_") not in measured:
        yield (
            ("training", "metric_for_best_model"),
            f"'{best}' is not among evaluation.metrics{nearest(best.removeprefix('eval_'), measured)}",
        )


def _only_for_texts(recipe: Recipe) -> Iterator[tuple[tuple[str, ...], str]]:
    """What a recipe for pictures asks of them in vain: key path and message."""
    for key in ("on_policy", "teacher_cache"):
        if recipe.distillation is not None and getattr(recipe.distillation, key) is not None:
            yield ("distillation", key), "is for texts; pictures have no tokens to write or to keep; leave it out"
    if recipe.training.allocation is not None:
        yield ("training", "allocation"), "is for texts: sensitivities are those of tokens; set it to null"


def load_recipe(
    source: str | Path | Mapping[str, Any], *, registry: Declarations, overrides: Sequence[str] = ()
) -> Recipe:
    """Read and check a recipe; all problems are reported at once.

    Args:
        source: path of a YAML or JSON file, or the recipe as a dict.
        registry: the loaded plugins (`edgerazor.load_plugins()`); component names are looked up there.
        overrides: `key.path=value` strings that replace values before anything is checked; values are YAML.

    Raises:
        RecipeError: with one line per problem: file, key path, what is wrong, the nearest valid name.
    """
    label = "recipe" if isinstance(source, Mapping) else str(source)
    raw = dict(source) if isinstance(source, Mapping) else read_mapping(Path(source), expected=SECTIONS)
    parsed = parse_overrides(overrides)
    before = [override for override in parsed if any(override.path[: len(key)] == key for key in SETTLED_FIRST)]
    raw, problems = apply_overrides(raw, before)
    raw, preset_problems = expand_preset(raw, registry)
    raw, more_problems = apply_overrides(raw, [override for override in parsed if override not in before])
    keep_written_sizes(raw, parsed)
    problems = [f"--set {line}" for line in problems + more_problems]
    problems += [f"{label}: {line}" for line in preset_problems]
    try:
        recipe = Recipe.model_validate(raw, context={"registry": registry})
    except ValidationError as error:
        for line in error.errors():
            if preset_problems and tuple(line["loc"]) == () and "needs 'quantization'" in line["msg"]:
                continue
            where = key_path(line["loc"])
            problems.append(f"{label}: {where}: {line['msg']}" if where else f"{label}: {line['msg']}")
        raise RecipeError(problems) from None
    if problems:
        raise RecipeError(problems)
    return recipe


def key_path(location: Sequence[str | int]) -> str:
    """`("a", "b", 1, "c")` as `a.b[1].c`."""
    text = ""
    for part in location:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else str(part)
    return text
