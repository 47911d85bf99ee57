"""`train`: from a recipe to a packed low-bit checkpoint; what can go wrong is said before the first step."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from rich.console import Console
from transformers import TrainerCallback
from transformers.utils import logging as transformers_logging

from edgerazor.core.contracts import Exporter, ExportResult, Progress
from edgerazor.core.layers.weight_cache import WeightCache, cached_weights
from edgerazor.core.registry import Registry
from edgerazor.core.resolved_recipe import write_resolved_recipe
from edgerazor.core.run_folder import ALLOCATION, PACKED, RECIPE
from edgerazor.data import Data
from edgerazor.distill.state import settle_layers
from edgerazor.export.export import build_exporters, export_checkpoint
from edgerazor.models.load import Models, fitted_recipe
from edgerazor.schemas.recipe import Recipe
from edgerazor.training.allocation import said_of
from edgerazor.training.build import build_trainer
from edgerazor.training.callbacks import EpochDrawn, Interrupt, LiveProgress, StepsChangeWeights
from edgerazor.training.date import with_run_date
from edgerazor.training.finish import finish_run
from edgerazor.training.lost_ranks import lost_ranks_named
from edgerazor.training.output import claimed_run, prepare_output
from edgerazor.training.parallelism import check_parallelism
from edgerazor.training.rows import errors_of_workers
from edgerazor.training.save import BestByStep
from edgerazor.training.split import SplitSaved, split_of
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
@lost_ranks_named()
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
        resume: go on from the newest whole checkpoint in `output`; without it a folder that holds a run is refused.
        data: rows that `load_data` made from the recipe's data section before; None loads them now.
        callbacks: further transformers callbacks.
        console: where progress goes; None is standard error.
        now: seconds that have passed since any fixed moment; the clock that `training.max_seconds` is measured by.
        export_progress: called as `Exporter.progress` during the exports.

    Raises:
        RecipeError, PlanError, DataError, CheckpointError: before any training, whatever can be known by then.
        TrainingError, OutputError: what `check_parallelism` refuses, the folder holds a run or is in use, the loss is
            not finite, the disk is full, another process of the run ended.
    """
    check_parallelism(recipe.training)
    console, output = console or Console(stderr=True), Path(output)
    exporters, models = build_exporters(recipe, registry=registry), Models(recipe.model, registry)
    with claimed_run(output):
        recipe = with_run_date(fitted_recipe(models, recipe), models, output / RECIPE if resume else None)
        last = prepare_output(output, recipe, resume=resume, registry=registry, console=console)
        trainer, plan = build_trainer(recipe, models, output, data, now, last)
        interrupt, progress = _add_callbacks(trainer, callbacks, console, now)
        started = now()
        _say_allocation(trainer, recipe, output, console, last)
        _settle_layers(trainer, console, last)
        _write_recipe(trainer, recipe, output / RECIPE, registry)
        with _cache(trainer) as cache:
            _run_steps(trainer, last, cache, interrupt, progress)
            result = _result(trainer, output, now() - started)
            if interrupt.received is not None:
                return replace(result, interrupted=True)
            evaluation = finish_run(trainer, plan, models=models, output=output)
        exports = _export(trainer, exporters, output / PACKED, registry, export_progress)
        return replace(result, checkpoint=output / PACKED, evaluation=evaluation, exports=exports)


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
    split = SplitSaved(**asdict(split_of(trainer.recipe.training, trainer.args.world_size)))
    drawn = [EpochDrawn(trainer.train_dataset)] if hasattr(trainer.train_dataset, "set_epoch") else []
    ours = [*drawn, *([trainer.clock] if trainer.clock else []), progress, interrupt, BestByStep(), split]
    for callback in (*callbacks, *ours):
        trainer.add_callback(callback)
    return interrupt, progress


def _run_steps(
    trainer: DistillationTrainer, last: str | None, cache: WeightCache, interrupt: Interrupt, progress: LiveProgress
) -> None:
    """Train from `last`, the checkpoint to resume from; signals and screen are given back whatever happens."""
    trainer.add_callback(StepsChangeWeights(cache))
    try:
        with errors_of_workers():
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


def _say_allocation(
    trainer: DistillationTrainer, recipe: Recipe, output: Path, console: Console, last: str | None
) -> None:
    """What came of `training.allocation`, unless the run goes on from `last` and has said so."""
    if recipe.training.allocation and last is None and trainer.is_world_process_zero():
        console.print(said_of(output / ALLOCATION), soft_wrap=True, markup=False, highlight=False)


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
