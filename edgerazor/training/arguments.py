"""From the `training` section to transformers.TrainingArguments, checked against the version that is installed."""

from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
from transformers import TrainingArguments

from edgerazor.errors import RecipeError, TrainingError
from edgerazor.schemas.base import nearest
from edgerazor.schemas.evaluation import EvaluationSection
from edgerazor.schemas.training import TrainingSection
from edgerazor.training.parallelism import check_sharding

OURS = {"allocation", "extra", "max_seconds", "scale_learning_rate", "start", "start_samples", "train_parameters"}
_SHARES = {"top1_agreement", "top1", "top5"}  # of right answers; all other figures are better the smaller they are
NO_STEP_LIMIT = 1_000_000_000
RENAMED = {
    "gradient_checkpointing": "activation_checkpointing",
    "gradient_checkpointing_kwargs": "activation_checkpointing_kwargs",
}
SET_BY_US = {
    "output_dir": "the --output option",
    "remove_unused_columns": "edgerazor, whose batches hold more than the model's arguments",
    "logging_nan_inf_filter": "edgerazor, which checks the loss when it is logged",
    "save_on_each_node": "nothing: a checkpoint is written once, into a folder that all processes see",
    "eval_strategy": "evaluation.every_steps",
    "eval_steps": "evaluation.every_steps",
    "fp16": "nothing: float16 gradients of the head underflow; use bf16",
    "label_smoothing_factor": "nothing: the task loss is the plain cross entropy",
}


def build_training_arguments(
    training: TrainingSection, evaluation: EvaluationSection, folder: Path
) -> TrainingArguments:
    """Make the arguments of a run whose checkpoints go to `folder`.

    Raises:
        TrainingError: several GPUs are visible to this one process, or version 1 of FSDP is asked for.
        RecipeError: a key under `training.extra` is unknown to the installed transformers or set elsewhere, or a value
            is refused by it.
    """
    known = {field.name for field in fields(TrainingArguments)}
    problems = [_refusal(key, known) for key in training.extra if key in SET_BY_US or key not in known]
    if problems:
        raise RecipeError(problems)
    values = {**_declared(training, known), **_set_by_us(training, evaluation, folder), **training.extra}
    try:
        arguments = TrainingArguments(**values)
    except (ValueError, TypeError, ImportError) as error:
        raise RecipeError(f"training: {error}") from error
    check_sharding(getattr(arguments, "fsdp_plugin_args", None))
    if arguments.n_gpu > 1:
        raise TrainingError(
            "several GPUs are visible to one process; start with `accelerate launch`, or show it one: "
            "CUDA_VISIBLE_DEVICES=0"
        )
    if training.max_seconds is not None and arguments.world_size > 1:
        raise RecipeError("training.max_seconds: clocks of several processes differ; give max_steps instead")
    return arguments


def _declared(training: TrainingSection, known: set[str]) -> dict[str, Any]:
    """The section's fields under the names of the installed transformers."""
    values: dict[str, Any] = {
        key: list(value) if isinstance(value, tuple) else value
        for key, value in training.model_dump().items()
        if key not in OURS and value is not None and (key in known or value != _default(key))
    }
    for old, new in RENAMED.items():
        if new in known and old in values:
            values[new] = values.pop(old)
    missing = sorted(set(values) - known)
    if missing:
        raise RecipeError([f"training.{key}: the installed transformers has no such argument" for key in missing])
    if values["warmup_steps"] >= 1:
        values["warmup_steps"] = int(values["warmup_steps"])
    if values.get("metric_for_best_model") and values.get("greater_is_better") is None:
        best = str(values["metric_for_best_model"]).removeprefix("eval_")
        values["greater_is_better"] = best in _SHARES
    return values


def _set_by_us(training: TrainingSection, evaluation: EvaluationSection, folder: Path) -> dict[str, Any]:
    values: dict[str, Any] = {
        "output_dir": str(folder),
        "remove_unused_columns": False,
        "logging_nan_inf_filter": False,
        "disable_tqdm": True,
        "use_cpu": training.use_cpu or not torch.cuda.is_available(),
        "save_on_each_node": False,
        "eval_strategy": "steps" if evaluation.every_steps else "no",
        "per_device_eval_batch_size": evaluation.batch_size,
    }
    if evaluation.every_steps:
        values["eval_steps"] = evaluation.every_steps
    if training.max_seconds is not None and training.max_steps < 0:
        values["max_steps"] = NO_STEP_LIMIT
    return values


def _default(key: str) -> Any:
    return TrainingSection.model_fields[key].get_default(call_default_factory=True)


def _refusal(key: str, known: set[str]) -> str:
    if key in SET_BY_US:
        return f"training.extra.{key}: is set by {SET_BY_US[key]}"
    return f"training.extra: transformers.TrainingArguments has no '{key}'{nearest(key, known)}"
