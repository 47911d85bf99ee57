"""Student and teacher of a recipe: opened, planned, loaded."""

from collections.abc import Iterator
from dataclasses import replace
from functools import cached_property
from typing import Any

import torch
from torch import nn

from edgerazor.core.apply import apply_plan
from edgerazor.core.contracts import ArchitectureAdapter, Signal
from edgerazor.core.plan import Plan, build_plan
from edgerazor.core.registry import Registry
from edgerazor.errors import PlanError
from edgerazor.models.offload import offload
from edgerazor.models.source import ModelSource
from edgerazor.schemas.model import ModelSection
from edgerazor.schemas.recipe import Recipe


class Models:
    """The two models that the `model` section of a recipe names. Nothing is read before it is asked for.

    Args:
        section: of the recipe.
        registry: loaded plugins.

    Attributes:
        student: the 16-bit model that becomes the student.
        teacher: the same object where the student learns from its own 16-bit checkpoint.
    """

    def __init__(self, section: ModelSection, registry: Registry):
        self.section, self.registry = section, registry
        name = section.name_or_path
        self.student = ModelSource(
            name,
            registry=registry,
            revision=section.revision,
            tokenizer=section.tokenizer,
            family=section.family,
        )
        own = section.teacher_name == name
        self.teacher = self.student if own else ModelSource(section.teacher_name, registry=registry)

    @cached_property
    def teacher_adapter(self) -> ArchitectureAdapter:
        """The adapter of the teacher: the student's where both are of one model type."""
        same = self.teacher.config.model_type == self.student.config.model_type
        return self.student.adapter if same else self.teacher.adapter

    def load_teacher(self, *, device: torch.device, attentions: bool = False) -> nn.Module:
        """The teacher: evaluation mode, no gradients, on `device` or offloaded from it.

        Args:
            attentions: keep its attention probabilities.
        """
        dtype: Any = self.section.teacher_dtype
        if dtype == "auto" and device.type == "cpu":
            dtype = "float32"
        teacher = self.teacher.load(dtype)
        if attentions:
            teacher.set_attn_implementation("eager")  # type: ignore[operator]
        teacher.requires_grad_(False)
        if self.section.teacher_offload and device.type != "cpu":
            offload(teacher, device)
            return teacher
        return teacher.to(device)

    def check_vocabularies(self) -> None:
        """Raise PlanError unless teacher and student number the same tokens."""
        if self.teacher is self.student:
            return
        ours, theirs = self.student.vocabulary_size, self.teacher.vocabulary_size
        where = f"teacher {self.teacher.name} and student {self.student.name}"
        if ours != theirs:
            raise PlanError(f"{where} have vocabularies of {theirs} and {ours} tokens; distillation needs the same one")
        if self.student.classifies_images:
            self._check_classes()
            return
        if not self.teacher.has_tokenizer:
            return
        student_tokens, teacher_tokens = self.student.tokenizer.get_vocab(), self.teacher.tokenizer.get_vocab()
        different = [token for token, index in student_tokens.items() if teacher_tokens.get(token) != index]
        if different:
            raise PlanError(
                f"{where} number {len(different)} tokens differently, for example {different[0]!r} "
                f"({teacher_tokens.get(different[0])} and {student_tokens[different[0]]})"
            )

    def _check_classes(self) -> None:
        """Raise PlanError if a class that both name has another number in the teacher."""
        ours, theirs = (source.config.label2id or {} for source in (self.student, self.teacher))
        different = [name for name, number in ours.items() if theirs.get(name, number) != number]
        if different:
            raise PlanError(
                f"teacher {self.teacher.name} and student {self.student.name} number {len(different)} classes "
                f"differently, for example {different[0]!r} ({theirs[different[0]]} and {ours[different[0]]})"
            )


def plan_recipe(recipe: Recipe, *, registry: Registry) -> Plan:
    """What the recipe does to its model, from config.json alone.

    Raises:
        CheckpointError: the model's configuration cannot be read.
        PlanError: see `edgerazor.core.plan.build_plan`.
        PluginError: the code behind a loss cannot be imported.
    """
    return plan_models(Models(recipe.model, registry), recipe)


def plan_models(models: Models, recipe: Recipe) -> Plan:
    """As `plan_recipe`, of models that are open already."""
    student, registry = models.student, models.registry
    plan = build_plan(student.build_meta_model(), recipe.quantization, adapter=student.adapter, registry=registry)
    return replace(plan, notes=(*plan.notes, *_notes(student, recipe, registry)))


def _notes(student: ModelSource, recipe: Recipe, registry: Registry) -> Iterator[str]:
    yield from _head_notes(student)
    yield from _attention_notes(recipe, registry)
    if recipe.training.allocation is not None:
        yield (
            "training.allocation: `train` chooses other widths for the decoder, of as many bits in all; `pack` takes "
            "these, and `edgerazor allocate` writes a recipe with those chosen"
        )


def _head_notes(student: ModelSource) -> Iterator[str]:
    if student.own_head is not None:
        yield (
            f"{student.own_head}: config.json ties it to the embedding, but the files hold other values; it is taken "
            "as a head of its own"
        )


def fitted_recipe(models: Models, recipe: Recipe) -> Recipe:
    """The recipe with group sizes that fit its model, where it leaves them to be chosen.

    Raises:
        PlanError: see `edgerazor.core.plan.build_plan`.
    """
    if not recipe.quantization.fit:
        return recipe
    return recipe.model_copy(update={"quantization": plan_models(models, recipe).quantization})


def _attention_notes(recipe: Recipe, registry: Registry) -> Iterator[str]:
    """Which losses ask for another attention implementation than the usual one (METHOD 4.6)."""
    for index, params in enumerate(recipe.distillation.losses if recipe.distillation else ()):
        if Signal.ATTENTIONS in registry.build(params).signals:
            yield (
                f"distillation.losses[{index}]: {params.name} reads attention probabilities, so student and teacher "
                "run with eager attention, which holds [batch, heads, seq, seq] of every layer"
            )


def load_student(models: Models, recipe: Recipe, *, attentions: bool = False) -> tuple[nn.Module, Plan]:
    """The 16-bit model in float32 latents with the plan applied: ready for quantization-aware training.

    Args:
        models: of the recipe.
        recipe: its `quantization` is applied.
        attentions: keep the student's attention probabilities.
    """
    registry = models.registry
    model: Any = models.student.load(torch.float32)
    # Checkpoints of a run hold the names of the model: a Trainer that resumes would not find those of older files.
    model._weight_conversions = []
    plan = build_plan(model, recipe.quantization, adapter=models.student.adapter, registry=registry)
    return apply_plan(model, plan, registry=registry, attentions=attentions), plan


def pick_device(*, use_cpu: bool = False) -> torch.device:
    """CUDA where there is one, else the CPU; other accelerators lack float64, which exact sums need."""
    return torch.device("cuda" if torch.cuda.is_available() and not use_cpu else "cpu")
