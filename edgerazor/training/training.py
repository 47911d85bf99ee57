"""`train`: from a recipe to a packed low-bit checkpoint; what can go wrong is said before the first step."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console
from torch import nn
from transformers import TrainerCallback
from transformers.trainer_callback import PrinterCallback
from transformers.utils import logging as transformers_logging

from edgerazor.checkpoint import qat_config, unquantized_dtype
from edgerazor.core.contracts import Exporter, ExportResult, Progress, Signal
from edgerazor.core.layers.weight_cache import WeightCache, cached_weights
from edgerazor.core.plan import Plan
from edgerazor.core.registry import Registry
from edgerazor.core.resolved_recipe import write_resolved_recipe
from edgerazor.data import Collator, Data, load_data
from edgerazor.distill import Distiller
from edgerazor.distill.on_policy import OnPolicySampler
from edgerazor.distill.state import settle_layers
from edgerazor.distill.teacher_cache.read import CachedTeacherCollator, TeacherCache, numbered
from edgerazor.errors import PlanError, RecipeError
from edgerazor.export.export import build_exporters, export_checkpoint
from edgerazor.models.load import Models, fitted_recipe, load_student
from edgerazor.models.share_weights import share_frozen_weights
from edgerazor.models.special_tokens import padding_token
from edgerazor.schemas.paths import local_path
from edgerazor.schemas.recipe import Recipe
from edgerazor.training.arguments import build_training_arguments
from edgerazor.training.callbacks import Interrupt, LiveProgress, StepsChangeWeights
from edgerazor.training.clock import Clock
from edgerazor.training.date import with_run_date
from edgerazor.training.finish import finish_run
from edgerazor.training.output import CHECKPOINTS, PACKED, RECIPE, claimed_run, prepare_output
from edgerazor.training.parallelism import check_parallelism
from edgerazor.training.rows import check_rows, settle_student
from edgerazor.training.save import BestByStep
from edgerazor.training.trainer import DistillationTrainer


@dataclass(frozen=True)
class TrainResult:
    """A finished run.

    Attributes:
        output: the run's folder: resolved recipe, metrics, latent checkpoints, packed checkpoint.
        checkpoint: the packed checkpoint; None if the run was interrupted before its end.
        steps, tokens: optimizer steps and input tokens on all ranks, earlier parts of a resumed run included.
        seconds: wall clock of training in this call.
        history: what was logged, in order.
        evaluation: held-out figures of the finished student; empty without held-out data.
        exports: what the exporters of the recipe wrote.
        interrupted: True after Ctrl-C or SIGTERM; the state is saved and `resume` goes on.
    """

    output: Path
    checkpoint: Path | None
    steps: int
    tokens: int
    seconds: float
    history: Sequence[Mapping[str, Any]] = field(default_factory=list)
    evaluation: Mapping[str, float] = field(default_factory=dict)
    exports: tuple[ExportResult, ...] = ()
    interrupted: bool = False


@contextmanager
def _verbosity_kept() -> Iterator[None]:
    """Give transformers its verbosity back, which a Trainer sets to its own `log_level`."""
    level = transformers_logging.get_verbosity()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(level)


@_verbosity_kept()
def train(
    recipe: Recipe,
    *,
    registry: Registry,
    output: str | Path,
    resume: bool = False,
    data: Data | None = None,
    callbacks: Sequence[TrainerCallback] = (),
    console: Console | None = None,
    now: Callable[[], float] = time.monotonic,
    export_progress: Progress | None = None,
) -> TrainResult:
    """Train the recipe's student, then pack, verify and export it.

    Args:
        recipe: a checked recipe with a `data` section.
        registry: loaded plugins.
        output: folder of the run.
        resume: go on from the newest whole checkpoint in `output`, naming what is wrong with newer ones; without it a
            folder that holds a run is refused.
        data: rows that `load_data` made from the recipe's data section before; None loads them now.
        callbacks: further transformers callbacks.
        console: where progress goes; None is standard error.
        now: seconds that have passed since any fixed moment; the clock that `training.max_seconds` is measured by.
        export_progress: called as `Exporter.progress` during the exports.

    Raises:
        RecipeError, PlanError, DataError, CheckpointError: before any training, whatever can be known by then.
        TrainingError, OutputError: what `check_parallelism` refuses, the folder holds a run or is in use, the loss is
            not finite, the disk is full.
    """
    check_parallelism(recipe.training)
    console, output = console or Console(stderr=True), Path(output)
    exporters, models = build_exporters(recipe, registry=registry), Models(recipe.model, registry)
    with claimed_run(output):
        recipe = with_run_date(fitted_recipe(models, recipe), models, output / RECIPE if resume else None)
        last = prepare_output(output, recipe, resume=resume, registry=registry, console=console)
        trainer, plan = _build_trainer(recipe, models, output, data, now)
        interrupt, progress = _add_callbacks(trainer, callbacks, console, now)
        started = now()
        _settle_layers(trainer, console, last)
        with _cache(trainer) as cache:
            _write_recipe(trainer, recipe, output / RECIPE, registry)
            _run_steps(trainer, last, cache, interrupt, progress)
            result = _result(trainer, output, now() - started)
            if interrupt.received is not None:
                return replace(result, interrupted=True)
            evaluation = finish_run(trainer, recipe, plan, models=models, output=output)
        result = replace(result, checkpoint=output / PACKED, evaluation=evaluation)
        return replace(result, exports=_export(trainer, exporters, output / PACKED, registry, export_progress))


def _result(trainer: DistillationTrainer, output: Path, seconds: float) -> TrainResult:
    """Of the steps alone; nothing is packed yet."""
    state = trainer.state
    return TrainResult(output, None, state.global_step, state.num_input_tokens_seen, seconds, state.log_history)


def _cache(trainer: DistillationTrainer) -> AbstractContextManager[WeightCache]:
    """Sharded wrappers gather whole weights for a moment only; keeping them would undo that."""
    whole = trainer.accelerator.unwrap_model(trainer.model)
    return cached_weights(whole, policy="off" if trainer.sharded else None)


def _write_recipe(trainer: DistillationTrainer, recipe: Recipe, path: Path, registry: Registry) -> None:
    if trainer.is_world_process_zero():
        write_resolved_recipe(recipe, path, registry=registry)


def _add_callbacks(
    trainer: DistillationTrainer, callbacks: Sequence[TrainerCallback], console: Console, now: Callable[[], float]
) -> tuple[Interrupt, LiveProgress]:
    """Add the caller's callbacks, then the clock, the progress and the handler of interrupts."""
    interrupt = Interrupt(console)
    progress = LiveProgress(console, trainer.clock, now=now, losses=trainer.distiller.names)
    for callback in (*callbacks, *([trainer.clock] if trainer.clock else []), progress, interrupt, BestByStep()):
        trainer.add_callback(callback)
    return interrupt, progress


def _run_steps(
    trainer: DistillationTrainer, last: str | None, cache: WeightCache, interrupt: Interrupt, progress: LiveProgress
) -> None:
    """Train from `last`, the checkpoint to resume from; signals and screen are given back whatever happens."""
    trainer.add_callback(StepsChangeWeights(cache))
    try:
        trainer.train(resume_from_checkpoint=last)
    finally:
        interrupt.restore()
        progress.stop()


def _export(
    trainer: DistillationTrainer,
    exporters: Sequence[Exporter],
    checkpoint: Path,
    registry: Registry,
    progress: Progress | None,
) -> tuple[ExportResult, ...]:
    """Run the exporters of a recipe on its packed checkpoint, on the first rank; the others wait, and get nothing."""
    results = []
    for index, exporter in enumerate(exporters if trainer.is_world_process_zero() else ()):
        where = f"export[{index}]"
        results.append(export_checkpoint(checkpoint, exporter, registry=registry, progress=progress, where=where))
    trainer.accelerator.wait_for_everyone()
    return tuple(results)


def _build_trainer(
    recipe: Recipe, models: Models, output: Path, data: Data | None, now: Callable[[], float]
) -> tuple[DistillationTrainer, Plan]:
    if recipe.data is None:
        raise RecipeError("data: the recipe has no data section; training needs sources")
    arguments = build_training_arguments(recipe.training, recipe.evaluation, output / CHECKPOINTS)
    models.check_vocabularies()
    config = models.student.config
    distiller = Distiller.from_recipe(
        recipe.distillation,
        registry=models.registry,
        adapter=models.student.adapter,
        teacher_adapter=models.teacher_adapter,
    )
    _check_recomputed(recipe, distiller)
    distiller.check_models(config, models.teacher.config if distiller.needs_teacher else config)
    tokenizer, vocabulary = models.student.tokenizer, models.student.vocabulary_size
    data = data or load_data(recipe.data, tokenizer, vocabulary_size=vocabulary)
    check_rows(data, arguments, config)
    padding = padding_token(tokenizer, vocabulary)
    rows, collator = _training_rows(recipe, distiller, data, padding, vocabulary)
    student, plan = load_student(models, recipe, attentions=Signal.ATTENTIONS in distiller.signals)
    settle_student(student, tokenizer, data)
    _choose_parameters(student, plan, recipe.training.train_parameters)
    student.config.quantization_config = qat_config(  # type: ignore[union-attr]
        recipe, plan, registry=models.registry, unquantized=unquantized_dtype(config)
    )
    compared = data.held_out is not None and {"kl_teacher", "top1_agreement"} & set(recipe.evaluation.metrics)
    attentions = Signal.ATTENTIONS in distiller.teacher_signals
    load = partial(models.load_teacher, device=arguments.device, attentions=attentions)
    cached = isinstance(collator, CachedTeacherCollator)
    trainer = DistillationTrainer(
        model=student,
        args=arguments,
        recipe=recipe,
        distiller=distiller,
        teacher=load() if not cached and (distiller.needs_teacher or compared) else None,
        evaluation_teacher=load if cached and compared else None,
        on_policy=_sampler(recipe, student, padding),
        clock=Clock(recipe.training.max_seconds, now=now) if recipe.training.max_seconds else None,
        train_dataset=rows,
        eval_dataset=data.held_out,
        data_collator=collator,
        processing_class=tokenizer,
    )
    trainer.remove_callback(PrinterCallback)
    if trainer.teacher is not None and not trainer.sharded:
        share_frozen_weights(student, trainer.teacher)
    return trainer, plan


def _training_rows(
    recipe: Recipe, distiller: Distiller, data: Data, pad_token_id: int, vocabulary: int
) -> tuple[Any, Collator]:
    """The rows to train on and what makes batches of them, with the teacher's tokens where a cache is given."""
    section = recipe.distillation
    if section is None or section.teacher_cache is None:
        return data.train, Collator(pad_token_id)
    cache = TeacherCache(local_path(section.teacher_cache))
    cache.check_recipe(distiller, vocabulary, recipe.model)
    cache.check_rows(data.train, date=recipe.data.date if recipe.data else None)
    return numbered(data.train), CachedTeacherCollator(pad_token_id, cache, distiller.fused.temperatures)


def _sampler(recipe: Recipe, student: Any, pad_token_id: int) -> OnPolicySampler | None:
    section = recipe.distillation.on_policy if recipe.distillation else None
    if section is None or recipe.data is None:
        return None
    stop = student.generation_config.eos_token_id
    return OnPolicySampler(
        section,
        seed=recipe.training.seed,
        sequence_length=recipe.data.sequence_length,
        pad_token_id=pad_token_id,
        stop_ids=[stop] if isinstance(stop, int) else list(stop or []),
    )


def _settle_layers(trainer: DistillationTrainer, console: Console, last: str | None) -> None:
    """Choose layers by calibration on the first batches of the data, the same ones on every rank; a run that goes on
    from the checkpoint `last` has them.
    """
    if trainer.teacher is None or last is not None:
        return
    size, rows = trainer.args.per_device_train_batch_size, trainer.train_dataset
    starts = (range(start, min(start + size, len(rows))) for start in range(0, len(rows), size))
    batches = (trainer.data_collator([rows[row] for row in some]) for some in starts)
    for name, layers in settle_layers(trainer.distiller, trainer.teacher, batches).items():
        if trainer.is_world_process_zero():
            console.print(f"{name}: calibration chose the layers {', '.join(map(str, layers))}")


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
