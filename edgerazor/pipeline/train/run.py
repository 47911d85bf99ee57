"""`train`: from a recipe to a packed low-bit checkpoint; what can go wrong is said before the first step."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from rich.console import Console
from torch import nn
from transformers import TrainerCallback, TrainingArguments
from transformers.trainer_callback import PrinterCallback

from edgerazor.core.contracts import Signal
from edgerazor.core.plan import Plan
from edgerazor.core.registry import Registry
from edgerazor.errors import DataError, RecipeError
from edgerazor.pipeline.checkpoint import qat_config
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
from edgerazor.pipeline.train.finish import finish_run
from edgerazor.pipeline.train.output import CHECKPOINTS, PACKED, RECIPE, prepare_output
from edgerazor.pipeline.train.trainer import DistillationTrainer
from edgerazor.schemas.recipe import Recipe


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
    last = prepare_output(output, recipe, resume=resume, registry=registry)
    trainer, plan = _build_trainer(recipe, registry, output, data)
    interrupt, progress = Interrupt(console), LiveProgress(console, trainer.clock)
    for callback in (*callbacks, *([trainer.clock] if trainer.clock else []), progress, interrupt):
        trainer.add_callback(callback)
    if trainer.is_world_process_zero():
        write_resolved_recipe(recipe, output / RECIPE, registry=registry)
    started = time.monotonic()
    try:
        trainer.train(resume_from_checkpoint=last)
    finally:
        interrupt.restore()
        progress.stop()
    seconds, state = time.monotonic() - started, trainer.state
    result = TrainResult(output, None, state.global_step, state.num_input_tokens_seen, seconds, state.log_history)
    if interrupt.received is not None:
        return replace(result, interrupted=True)
    evaluation = finish_run(trainer, recipe, plan, registry=registry, output=output)
    if trainer.is_world_process_zero():
        for index, exporter in enumerate(exporters):
            export_checkpoint(output / PACKED, exporter, console=console, registry=registry, where=f"export[{index}]")
    trainer.accelerator.wait_for_everyone()
    return replace(result, checkpoint=output / PACKED, evaluation=evaluation)


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
    student.config.quantization_config = qat_config(recipe, plan)  # type: ignore[union-attr]
    compared = data.held_out is not None and {"kl_teacher", "top1_agreement"} & set(recipe.evaluation.metrics)
    teacher = None
    if distiller.needs_teacher or compared:
        attentions = Signal.ATTENTIONS in distiller.signals
        teacher = load_teacher(recipe.model, device=arguments.device, attentions=attentions)
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
