"""`train`: from a recipe to a packed low-bit checkpoint; what can go wrong is said before the first step."""

import json
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from torch import nn
from transformers import TrainerCallback, TrainingArguments
from transformers.trainer_callback import PrinterCallback
from transformers.trainer_utils import get_last_checkpoint

from edgerazor.core.contracts import Signal
from edgerazor.core.plan import Plan
from edgerazor.core.registry import Registry
from edgerazor.errors import DataError, RecipeError, TrainingError
from edgerazor.pipeline.checkpoint import round_unquantized_, verify_checkpoint, write_checkpoint
from edgerazor.pipeline.data import Collator, Data, load_data
from edgerazor.pipeline.distill import Distiller
from edgerazor.pipeline.export import build_exporters, export_checkpoint
from edgerazor.pipeline.model import (
    adapter_for,
    check_vocabularies,
    load_config,
    load_student,
    load_teacher,
    load_tokenizer,
)
from edgerazor.pipeline.resolved import write_resolved_recipe
from edgerazor.pipeline.train.arguments import build_training_arguments
from edgerazor.pipeline.train.callbacks import Interrupt, LiveProgress
from edgerazor.pipeline.train.clock import Clock
from edgerazor.pipeline.train.trainer import DistillationTrainer
from edgerazor.schemas.recipe import Recipe

CHECKPOINTS, PACKED, METRICS = "checkpoints", "packed", "metrics.json"


@dataclass(frozen=True)
class TrainResult:
    """A finished run.

    Attributes:
        output: the run's folder: resolved recipe, metrics, latent checkpoints, packed checkpoint.
        checkpoint: the packed checkpoint; None if the run was interrupted before its end.
        steps, tokens, seconds: optimizer steps, input tokens on all ranks, wall clock of training alone.
        history: what was logged, in order.
        evaluation: held-out figures of the finished student; empty without held-out data.
        interrupted: True after Ctrl-C or SIGTERM; the state is saved and `resume` goes on.
    """

    output: Path
    checkpoint: Path | None
    steps: int
    tokens: int
    seconds: float
    history: Sequence[Mapping[str, Any]] = field(default_factory=list)
    evaluation: Mapping[str, float] = field(default_factory=dict)
    interrupted: bool = False


def train(
    recipe: Recipe,
    *,
    registry: Registry,
    output: str | Path,
    resume: bool = False,
    data: Data | None = None,
    callbacks: Sequence[TrainerCallback] = (),
    console: Console | None = None,
) -> TrainResult:
    """Train the recipe's student, then pack, verify and export it.

    Args:
        recipe: a checked recipe with a `data` section.
        registry: loaded plugins.
        output: folder of the run.
        resume: go on from the last checkpoint in `output`; without it a folder that holds a run is refused.
        data: rows that `load_data` made from the recipe's data section before; None loads them now.
        callbacks: further transformers callbacks.
        console: where progress goes; None is standard error.

    Raises:
        RecipeError, PlanError, DataError, CheckpointError: before any training, whatever can be known by then.
        TrainingError: the folder holds a run already, or the loss stops being finite.
    """
    console, output = console or Console(stderr=True), Path(output)
    exporters = build_exporters(recipe, registry=registry)
    last = _prepare_output(output, resume)
    trainer, plan = _build_trainer(recipe, registry, output, data)
    clock = [trainer.clock] if trainer.clock else []
    for callback in (*callbacks, *clock, LiveProgress(console, trainer.clock)):
        trainer.add_callback(callback)
    interrupt = Interrupt(console)
    trainer.add_callback(interrupt)
    _on_main_process(trainer, lambda: write_resolved_recipe(recipe, output / "recipe.yaml", registry=registry))
    started = time.monotonic()
    try:
        trainer.train(resume_from_checkpoint=last)
    finally:
        interrupt.restore()
    seconds = time.monotonic() - started
    steps, history = trainer.state.global_step, trainer.state.log_history
    if interrupt.received is not None:
        return TrainResult(output, None, steps, trainer.tokens_seen, seconds, history, interrupted=True)
    student = _finished_student(trainer, recipe, registry)
    evaluation = trainer.evaluate() if trainer.eval_dataset is not None else {}
    checkpoint = output / PACKED
    if student is not None:
        write_checkpoint(
            student,
            checkpoint,
            recipe=recipe,
            plan=plan,
            registry=registry,
            tokenizer=trainer.processing_class,
            evaluation=evaluation,
        )
        verify_checkpoint(checkpoint).raise_if_damaged()
        metrics = {"steps": steps, "tokens": trainer.tokens_seen, "seconds": seconds, "evaluation": evaluation}
        (output / METRICS).write_text(json.dumps({**metrics, "history": history}, indent=1) + "\n", encoding="utf-8")
        for index, exporter in enumerate(exporters):
            export_checkpoint(checkpoint, exporter, console=console, registry=registry, where=f"export[{index}]")
    trainer.accelerator.wait_for_everyone()
    return TrainResult(output, checkpoint, steps, trainer.tokens_seen, seconds, history, evaluation)


def _prepare_output(output: Path, resume: bool) -> str | None:
    """Check that the folder can be used; return the checkpoint to resume from."""
    checkpoints = output / CHECKPOINTS
    last = get_last_checkpoint(str(checkpoints)) if checkpoints.is_dir() else None
    if resume and last is None:
        raise TrainingError(f"{output}: nothing to resume: there is no checkpoint under {checkpoints}")
    if not resume and last is not None and "RANK" not in os.environ:
        raise TrainingError(f"{output}: already holds a run; resume it with --resume, or choose another folder")
    try:
        output.mkdir(parents=True, exist_ok=True)
        probe = output / f".writable-{os.getpid()}"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise TrainingError(f"{output}: cannot be written: {error.strerror}") from error
    return last


def _build_trainer(
    recipe: Recipe, registry: Registry, output: Path, data: Data | None
) -> tuple[DistillationTrainer, Plan]:
    if recipe.data is None:
        raise RecipeError("data: the recipe has no data section; training needs sources")
    arguments = build_training_arguments(recipe.training, recipe.evaluation, output / CHECKPOINTS)
    check_vocabularies(recipe.model)
    config = load_config(recipe.model)
    adapter = adapter_for(config, recipe.model, registry)
    distiller = Distiller.from_recipe(recipe.distillation, registry=registry, adapter=adapter)
    if distiller.needs_teacher:
        distiller.check_models(config, load_config(recipe.model, name=recipe.model.teacher))
    tokenizer = load_tokenizer(recipe.model)
    data = load_data(recipe.data, tokenizer, vocabulary_size=config.vocab_size) if data is None else data
    _check_enough(data, arguments)
    student, plan = load_student(recipe, registry=registry, attentions=Signal.ATTENTIONS in distiller.signals)
    _choose_parameters(student, plan, recipe.training.train_parameters)
    compared = "kl_teacher" in recipe.evaluation.metrics and data.held_out is not None
    teacher = load_teacher(recipe.model, device=arguments.device) if distiller.needs_teacher or compared else None
    clock = Clock(recipe.training.max_seconds) if recipe.training.max_seconds else None
    pad_token_id = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
    trainer = DistillationTrainer(
        model=student,
        args=arguments,
        recipe=recipe,
        distiller=distiller,
        teacher=teacher,
        clock=clock,
        train_dataset=data.train,
        eval_dataset=data.held_out,
        data_collator=Collator(pad_token_id or 0),
        processing_class=tokenizer,
    )
    trainer.remove_callback(PrinterCallback)
    return trainer, plan


def _check_enough(data: Data, arguments: TrainingArguments) -> None:
    needed = arguments.per_device_train_batch_size * arguments.world_size if arguments.dataloader_drop_last else 1
    if len(data.train) < needed:
        raise DataError(
            f"data.sources give {len(data.train)} rows, fewer than one batch of {needed}; add data, lower "
            "training.per_device_train_batch_size, or set training.dataloader_drop_last: false"
        )


def _choose_parameters(student: nn.Module, plan: Plan, which: str) -> None:
    if which == "quantized":
        names = {f"{module.name}.weight" for module in plan.quantized}
        for name, parameter in student.named_parameters():
            parameter.requires_grad_(name in names)


def _finished_student(trainer: DistillationTrainer, recipe: Recipe, registry: Registry) -> nn.Module | None:
    """The student with whole weights, on the main process; None on the others.

    Parameters that stay at 16 bit are rounded to it first, so that what is evaluated is what is saved.
    """
    if not trainer.is_fsdp_enabled and not trainer.is_deepspeed_enabled:
        student = trainer.accelerator.unwrap_model(trainer.model)
        round_unquantized_(student)
        return student if trainer.is_world_process_zero() else None
    state = trainer.accelerator.get_state_dict(trainer.model_wrapped)
    if not trainer.is_world_process_zero():
        return None
    student, _ = load_student(recipe, registry=registry)
    student.load_state_dict(state, strict=False)
    round_unquantized_(student)
    return student


def _on_main_process(trainer: DistillationTrainer, action: Any) -> None:
    if trainer.is_world_process_zero():
        action()
    trainer.accelerator.wait_for_everyone()
