"""From a recipe and its models to the trainer of a run; whatever does not fit is said here, before the first step."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from torch import nn
from transformers import TrainingArguments
from transformers.trainer_callback import PrinterCallback

from edgerazor.checkpoint import qat_config, unquantized_dtype
from edgerazor.checkpoint.learned_scales import learn_scales
from edgerazor.core.contracts import Signal
from edgerazor.core.plan import Plan
from edgerazor.core.run_folder import CHECKPOINTS
from edgerazor.data import Data
from edgerazor.distill import Distiller
from edgerazor.distill.on_policy import OnPolicySampler
from edgerazor.distill.teacher_cache.read import CachedTeacherCollator, TeacherCache, numbered
from edgerazor.errors import PlanError, RecipeError
from edgerazor.evaluate.task import Task, task_of
from edgerazor.models.load import Models, load_student
from edgerazor.models.share_weights import share_frozen_weights
from edgerazor.models.source import ModelSource
from edgerazor.schemas.data import DataSection
from edgerazor.schemas.paths import local_path
from edgerazor.schemas.recipe import Recipe
from edgerazor.training.allocation import allocated_recipe
from edgerazor.training.arguments import build_training_arguments
from edgerazor.training.clock import Clock
from edgerazor.training.rows import check_labels, check_rows, settle_student
from edgerazor.training.split import check_epoch
from edgerazor.training.start import start_student
from edgerazor.training.trainer import DistillationTrainer


def build_trainer(
    recipe: Recipe, models: Models, output: Path, data: Data | None, now: Callable[[], float], last: str | None
) -> tuple[DistillationTrainer, Plan]:
    """Make the trainer, student and teacher loaded, and the plan by which the student is quantized.

    The trainer's recipe says how: where `training.allocation` asks for it, with widths that were chosen here.

    Args:
        models: of the recipe.
        output, data, now: as those of `train`.
        last: checkpoint to resume from.

    Raises:
        RecipeError, PlanError, DataError, CheckpointError, TrainingError: as `train`, before any training.
    """
    if recipe.data is None:
        raise RecipeError("data: the recipe has no data section; training needs sources")
    arguments = build_training_arguments(recipe.training, recipe.evaluation, output / CHECKPOINTS)
    models.check_vocabularies()
    distiller = _fitting_distiller(recipe, models)
    task = _task_of(recipe.data, models.student)
    data = data or task.load(recipe.data)
    _check_data(data, recipe, arguments, models, last)
    rows, collator = _training_rows(recipe, distiller, data, task.training_collator, models.student.vocabulary_size)
    recipe = allocated_recipe(recipe, data, output, registry=models.registry, resumed=last is not None)
    ours, theirs = (Signal.ATTENTIONS in signals for signals in (distiller.signals, distiller.teacher_signals))
    student, plan = _load_student(recipe, models, task.processor, data, None if last else output, attentions=ours)
    compared = data.held_out is not None and {"kl_teacher", "top1_agreement"} & set(recipe.evaluation.metrics)
    load = partial(models.load_teacher, device=arguments.device, attentions=theirs)
    cached = isinstance(collator, CachedTeacherCollator)
    trainer = DistillationTrainer(
        model=student,
        scales=learn_scales(student, plan) if recipe.training.scale_learning_rate else None,
        args=arguments,
        recipe=recipe,
        distiller=distiller,
        teacher=load() if not cached and (distiller.needs_teacher or compared) else None,
        evaluation_teacher=load if cached and compared else None,
        evaluation_collator=task.collator,
        on_policy=_sampler(recipe, student, task.collator),
        clock=Clock(recipe.training.max_seconds, now=now) if recipe.training.max_seconds else None,
        train_dataset=rows,
        eval_dataset=data.held_out,
        data_collator=collator,
        processing_class=task.processor,
    )
    trainer.remove_callback(PrinterCallback)
    if trainer.teacher is not None and not trainer.sharded:
        share_frozen_weights(student, trainer.teacher)
    return trainer, plan


def _task_of(section: DataSection, student: ModelSource) -> Task:
    return task_of(section, student, student.adapter.facts(student.config), student.config)


def _check_data(data: Data, recipe: Recipe, arguments: TrainingArguments, models: Models, last: str | None) -> None:
    """Rows that suit the model, and, from the checkpoint `last`, an epoch of as many as before."""
    check_rows(data, arguments, models.student.config)
    if last is not None:
        check_epoch(Path(last), recipe.training, arguments.world_size, len(data.train))


def _fitting_distiller(recipe: Recipe, models: Models) -> Distiller:
    """The losses of a recipe, checked against the shapes of student and teacher."""
    distiller = Distiller.from_recipe(
        recipe.distillation,
        registry=models.registry,
        adapter=models.student.adapter,
        teacher_adapter=models.teacher_adapter,
    )
    _check_recomputed(recipe, distiller)
    config = models.student.config
    distiller.check_models(config, models.teacher.config if distiller.needs_teacher else config)
    return distiller


def _load_student(
    recipe: Recipe, models: Models, processor: Any, data: Data, begun_in: Path | None, *, attentions: bool
) -> tuple[nn.Module, Plan]:
    """The student as it is trained: plan applied, start found, special tokens settled, parameters chosen.

    Args:
        processor: tokenizer, or image processor.
        begun_in: folder of a run that begins; None where weights will come from a checkpoint.
    """
    student, plan = load_student(models, recipe, attentions=attentions)
    if begun_in is not None:
        start_student(student, plan, recipe.training, data, models.registry, begun_in)
    settle_student(student, processor, data)
    _choose_parameters(student, plan, recipe.training.train_parameters)
    student.config.quantization_config = qat_config(  # type: ignore[union-attr]
        recipe, plan, registry=models.registry, unquantized=unquantized_dtype(models.student.config)
    )
    return student, plan


def _training_rows(recipe: Recipe, distiller: Distiller, data: Data, collator: Any, vocabulary: int) -> tuple[Any, Any]:
    """The rows to train on and what makes batches of them, with the teacher's tokens where a cache is given."""
    check_labels(recipe, distiller, data)
    section = recipe.distillation
    if section is None or section.teacher_cache is None:
        return data.train, collator
    cache = TeacherCache(local_path(section.teacher_cache))
    cache.check_recipe(distiller, vocabulary, recipe.model)
    cache.check_rows(data.train, date=recipe.data.date if recipe.data else None)
    return numbered(data.train), CachedTeacherCollator(collator.pad_token_id, cache, distiller.fused.temperatures)


def _sampler(recipe: Recipe, student: Any, collator: Any) -> OnPolicySampler | None:
    section = recipe.distillation.on_policy if recipe.distillation else None
    if section is None or recipe.data is None:
        return None
    stop = student.generation_config.eos_token_id
    return OnPolicySampler(
        section,
        seed=recipe.training.seed,
        sequence_length=recipe.data.sequence_length,
        pad_token_id=collator.pad_token_id,
        stop_ids=[stop] if isinstance(stop, int) else list(stop or []),
    )


def _check_recomputed(recipe: Recipe, distiller: Distiller) -> None:
    """Reentrant checkpointing runs layers without a graph: only what they return would have a gradient."""
    inner = {Signal.ATTENTIONS, Signal.KEYS, Signal.VALUES, Signal.ROUTER_LOGITS}
    if (recipe.training.gradient_checkpointing_kwargs or {}).get("use_reentrant"):
        for name, loss in distiller.named():
            if read := sorted(signal.value for signal in inner & loss.signals):
                raise PlanError(
                    f"training.gradient_checkpointing_kwargs: with use_reentrant: true {name} would have no gradient, "
                    f"because it reads {', '.join(read)} inside the layers; leave use_reentrant out"
                )


def _choose_parameters(student: nn.Module, plan: Plan, which: str) -> None:
    if which == "quantized":
        names = {module.parameter_name for module in plan.quantized}
        for name, parameter in student.named_parameters():
            parameter.requires_grad_(name in names)
