"""Loading models: configuration first, weights when they are needed, always through transformers."""

import logging
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import nn
from transformers import AutoConfig, AutoTokenizer, PretrainedConfig, PreTrainedTokenizerBase
from transformers.utils import logging as transformers_logging

from edgerazor.core.apply import apply_plan
from edgerazor.core.contracts import ArchitectureAdapter, Signal
from edgerazor.core.plan import Plan, build_plan
from edgerazor.core.registry import Registry
from edgerazor.errors import CheckpointError, PlanError
from edgerazor.models.offload import offload
from edgerazor.models.types import auto_class, register_model_types, trained_config, vocabulary_size
from edgerazor.schemas.model import ModelSection
from edgerazor.schemas.recipe import Recipe


def load_config(section: ModelSection, *, name: str | None = None) -> PretrainedConfig:
    """Read config.json of the student (or of `name`); of a model made of several, the part that is trained.

    Raises:
        CheckpointError: there is no such model, or it is already packed to low bits.
    """
    name = name or section.name_or_path
    config = trained_config(_found(AutoConfig, name, section))
    quantized = getattr(config, "quantization_config", None)
    if quantized is not None:
        method = (
            quantized.get("quant_method") if isinstance(quantized, dict) else getattr(quantized, "quant_method", None)
        )
        mode = quantized.get("mode") if isinstance(quantized, dict) else getattr(quantized, "mode", None)
        if (str(method), mode) != ("edgerazor", "qat"):
            raise CheckpointError(f"{name}: is already quantized ({method}); expected a 16-bit model")
    return config


def load_tokenizer(section: ModelSection) -> PreTrainedTokenizerBase:
    """The tokenizer beside the model, or the one `model.tokenizer` names."""
    return _found(AutoTokenizer, section.tokenizer or section.name_or_path, section)


def build_meta_model(config: PretrainedConfig) -> nn.Module:
    """The model's modules and shapes on the meta device: no weight is loaded or allocated."""
    with torch.device("meta"):
        return auto_class(config).from_config(config, attn_implementation="sdpa")


def load_float_model(section: ModelSection, *, name: str | None = None, dtype: torch.dtype | str = "auto") -> nn.Module:
    """Load weights of the student (or of `name`) in a float dtype, evaluation mode, on the CPU.

    Raises:
        CheckpointError: a tensor is missing, has another shape, or holds NaN or infinity; the message names it.
    """
    name = name or section.name_or_path
    config = load_config(section, name=name)
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    level = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity(logging.ERROR)
    try:
        model, report = auto_class(config).from_pretrained(
            name,
            config=config,
            dtype=dtype,
            revision=section.revision_of(name),
            attn_implementation="sdpa",
            output_loading_info=True,
        )
    except (OSError, RuntimeError, ValueError, SafetensorError) as error:
        raise CheckpointError(f"{name}: cannot be loaded: {error}") from error
    finally:
        transformers_logging.set_verbosity(level)
    if report["missing_keys"]:
        missing = sorted(report["missing_keys"])
        raise CheckpointError(f"{name}: tensors are missing: {', '.join(missing[:5])} ({len(missing)} in all)")
    check_finite(model, name)
    return model.eval()


def check_finite(model: nn.Module, name: str) -> None:
    """Raise CheckpointError that names the first parameter with NaN or infinity."""
    for parameter_name, parameter in model.named_parameters():
        if not bool(torch.isfinite(parameter).all()):
            raise CheckpointError(
                f"{name}: {parameter_name} holds NaN or infinite values; nothing can be quantized from it"
            )


def adapter_for(config: PretrainedConfig, section: ModelSection, registry: Registry) -> ArchitectureAdapter:
    """The adapter of `model.family`, or of the model type in config.json."""
    return registry.adapter_for(section.family or config.model_type)


def student_adapter_for(section: ModelSection, registry: Registry) -> ArchitectureAdapter:
    """The adapter of the student, by its config.json."""
    return adapter_for(load_config(section), section, registry)


def teacher_adapter_for(section: ModelSection, registry: Registry) -> ArchitectureAdapter:
    """The adapter of the teacher: the student's where both are of one model type."""
    student = load_config(section)
    teacher = load_config(section, name=section.teacher) if section.teacher else student
    if teacher.model_type == student.model_type:
        return adapter_for(student, section, registry)
    return registry.adapter_for(teacher.model_type)


def plan_recipe(recipe: Recipe, *, registry: Registry) -> Plan:
    """What the recipe does to its model, from config.json alone.

    Raises:
        CheckpointError: the model's configuration cannot be read.
        PlanError: see `edgerazor.core.plan.build_plan`.
        PluginError: the code behind a loss cannot be imported.
    """
    config = load_config(recipe.model)
    adapter = adapter_for(config, recipe.model, registry)
    plan = build_plan(build_meta_model(config), recipe.quantization, adapter=adapter, registry=registry)
    return replace(plan, notes=(*plan.notes, *_attention_notes(recipe, registry)))


def _attention_notes(recipe: Recipe, registry: Registry) -> Iterator[str]:
    """Which losses ask for another attention implementation than the usual one (METHOD 4.6)."""
    for index, params in enumerate(recipe.distillation.losses if recipe.distillation else ()):
        if Signal.ATTENTIONS in registry.build(params).signals:
            yield (
                f"distillation.losses[{index}]: {params.name} reads attention probabilities, so student and teacher "
                "run with eager attention, which holds [batch, heads, seq, seq] of every layer"
            )


def load_student(recipe: Recipe, *, registry: Registry, attentions: bool = False) -> tuple[nn.Module, Plan]:
    """The 16-bit model in float32 latents with the plan applied: ready for quantization-aware training."""
    model = load_float_model(recipe.model, dtype=torch.float32)
    adapter = adapter_for(model.config, recipe.model, registry)
    plan = build_plan(model, recipe.quantization, adapter=adapter, registry=registry)
    return apply_plan(model, plan, registry=registry, attentions=attentions), plan


def load_teacher(section: ModelSection, *, device: torch.device, attentions: bool = False) -> nn.Module:
    """The teacher: evaluation mode, no gradients, on `device` or offloaded from it.

    Args:
        attentions: keep its attention probabilities.
    """
    dtype: Any = section.teacher_dtype
    if dtype == "auto" and device.type == "cpu":
        dtype = "float32"
    teacher = load_float_model(section, name=section.teacher_name, dtype=dtype)
    if attentions:
        teacher.set_attn_implementation("eager")  # type: ignore[operator]
    teacher.requires_grad_(False)
    if section.teacher_offload and device.type != "cpu":
        offload(teacher, device)
        return teacher
    return teacher.to(device)


def check_vocabularies(section: ModelSection) -> None:
    """Raise PlanError unless teacher and student number the same tokens."""
    if section.teacher is None or section.teacher == section.name_or_path:
        return
    ours, theirs = (vocabulary_size(load_config(section, name=name)) for name in (None, section.teacher))
    where = f"teacher {section.teacher} and student {section.name_or_path}"
    if ours != theirs:
        raise PlanError(f"{where} have vocabularies of {theirs} and {ours} tokens; distillation needs the same one")
    if not _has_tokenizer(section.teacher):
        return
    student_tokens, teacher_tokens = (
        load_tokenizer(section).get_vocab(),
        _found(AutoTokenizer, section.teacher, section).get_vocab(),
    )
    different = [token for token, index in student_tokens.items() if teacher_tokens.get(token) != index]
    if different:
        raise PlanError(
            f"{where} number {len(different)} tokens differently, for example {different[0]!r} "
            f"({teacher_tokens.get(different[0])} and {student_tokens[different[0]]})"
        )


def _has_tokenizer(name: str) -> bool:
    folder = Path(name)
    return not folder.is_dir() or any((folder / file).exists() for file in ("tokenizer.json", "tokenizer_config.json"))


def _found(loader: Any, name: str, section: ModelSection) -> Any:
    register_model_types()
    try:
        return loader.from_pretrained(name, revision=section.revision_of(name))
    except (OSError, ValueError, KeyError) as error:
        what = {AutoConfig: "config.json", AutoTokenizer: "tokenizer"}[loader]
        folder = Path(name)
        if not folder.exists():
            reason = "there is no such folder, and no model of that name could be fetched or found in the cache"
        else:
            reason = str(error).splitlines()[0]
        raise CheckpointError(f"{name}: no usable {what}: {reason}") from error


def pick_device(*, use_cpu: bool = False) -> torch.device:
    """CUDA where there is one, else the CPU; other accelerators lack float64, which exact sums need."""
    return torch.device("cuda" if torch.cuda.is_available() and not use_cpu else "cpu")
