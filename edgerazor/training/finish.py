"""The end of a run: the whole student, rounded as it is stored, measured, packed, verified and exported."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict

from edgerazor.checkpoint import round_unquantized_, unquantized_dtype, verify_checkpoint, write_checkpoint
from edgerazor.core.atomic import replaced
from edgerazor.core.plan import Plan
from edgerazor.core.run_folder import METRICS, PACKED
from edgerazor.distill.state import settled_layers
from edgerazor.errors import CheckpointError
from edgerazor.models.load import Models, load_student
from edgerazor.training.trainer import DistillationTrainer


def finish_run(trainer: DistillationTrainer, plan: Plan, *, models: Models, output: Path) -> Mapping[str, float]:
    """Measure the finished student, then write packed checkpoint and metrics; returns the held-out figures.

    Parameters that stay at 16 bit are rounded to it first, so that what is measured is what is saved.
    """
    student = _gathered(trainer, models) if trainer.sharded else trainer.accelerator.unwrap_model(trainer.model)
    dtype = unquantized_dtype(trainer.accelerator.unwrap_model(trainer.model).config)
    if student is not None:
        round_unquantized_(student, dtype)
    evaluation: Mapping[str, float] = {}
    if trainer.eval_dataset is not None:
        evaluation = trainer.evaluate_whole(student) if trainer.sharded else trainer.evaluate()
    if student is not None and trainer.is_world_process_zero():
        write_checkpoint(
            student,
            output / PACKED,
            recipe=trainer.recipe,
            plan=plan,
            registry=models.registry,
            tokenizer=trainer.processing_class,
            beside=models.student.processor_files,
            evaluation=evaluation,
            unquantized=dtype,
        )
        verify_checkpoint(output / PACKED, registry=models.registry).raise_if_damaged()
        _write_metrics(trainer, output / METRICS, evaluation)
    return evaluation


def _gathered(trainer: DistillationTrainer, models: Models) -> nn.Module | None:
    """A student with the weights of all shards, on the main process; None on the others."""
    state: dict[str, Any] = get_model_state_dict(
        trainer.model_wrapped, options=StateDictOptions(full_state_dict=True, cpu_offload=True)
    )
    if not trainer.is_world_process_zero():
        return None
    student, _ = load_student(models, trainer.recipe)
    student.generation_config = trainer.accelerator.unwrap_model(trainer.model).generation_config
    compute = _compute_dtype(trainer)
    # The quantizers saw the weights in this dtype; packing must see them alike.
    latents = {name: value.to(compute).to(torch.float32) for name, value in state.items()}
    report = student.load_state_dict(latents, strict=False)
    tied = set(getattr(student, "all_tied_weights_keys", {}))
    missing = [name for name in report.missing_keys if name not in tied]
    if missing or report.unexpected_keys:
        raise CheckpointError(f"the gathered weights do not fit the student: {(missing + report.unexpected_keys)[:3]}")
    return student


def _compute_dtype(trainer: DistillationTrainer) -> torch.dtype:
    plugin = trainer.accelerator.state.fsdp_plugin
    policy = getattr(plugin, "mixed_precision_policy", None)
    dtype = getattr(policy, "param_dtype", None)
    return dtype if isinstance(dtype, torch.dtype) else torch.float32


def _write_metrics(trainer: DistillationTrainer, path: Path, evaluation: Mapping[str, float]) -> None:
    content = {
        "steps": trainer.state.global_step,
        "tokens": trainer.state.num_input_tokens_seen,
        "processes": trainer.args.world_size,
        "layers": settled_layers(trainer.distiller),
        "sharding": "fsdp" if trainer.sharded else None,
        "evaluation": dict(evaluation),
        "history": trainer.state.log_history,
    }
    with replaced(path) as temporary:
        temporary.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
