"""The students: their recipes, rounding, calibrated rounding, training, and held-out figures beside the teacher's."""

import shutil
from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from edgerazor import load_model, load_recipe, train, verify_checkpoint
from edgerazor.calibrate.pack import pack_calibrated
from edgerazor.checkpoint import pack_model
from edgerazor.core.registry import Registry
from edgerazor.core.run_folder import ALLOCATION, CHECKPOINTS, PACKED
from edgerazor.data import Data, load_data
from edgerazor.evaluate.checkpoints import evaluate_model
from edgerazor.models.load import Models, pick_device
from edgerazor.schemas.model import ModelSection
from edgerazor.schemas.quantization import QuantizationSection
from edgerazor.schemas.recipe import Recipe
from edgerazor.training.allocation import allocated_recipe
from smollm2_demo.budget import probe
from smollm2_demo.options import Options, Student


class Students:
    """What is done with every student; teacher and rows are loaded once.

    Args:
        options: of the run.
        teacher: folder of the 16-bit model.
        registry: loaded plugins.
        console: where the progress of training goes.
    """

    def __init__(self, options: Options, teacher: Path, registry: Registry, console: Console):
        self.options, self.teacher, self.registry, self.console = options, teacher, registry, console

    def recipe(self, student: Student, *changes: str) -> Recipe:
        """The student's recipe on this run's teacher, dialogues and seed, its widths chosen where it asks for that."""
        if self._written(student).training.allocation is None:
            return self._written(student, *changes)
        recipe = self._written(student, "training.allocation=null", *changes)
        return recipe.model_copy(update={"quantization": self._widths(student)})

    def _widths(self, student: Student) -> QuantizationSection:
        """Chosen once for everything that is made of a student, and kept in its folder."""
        folder = self.options.output / student.name
        folder.mkdir(parents=True, exist_ok=True)
        found = allocated_recipe(
            self._written(student),
            self._training,
            folder,
            registry=self.registry,
            resumed=(folder / ALLOCATION).is_file(),
        )
        return found.quantization

    def _written(self, student: Student, *changes: str) -> Recipe:
        own = (
            f"model.name_or_path={_quoted(self.teacher)}",
            f"data.sources=[{_quoted(self.options.data)}]",
            f"training.seed={self.options.seed}",
            f"data.seed={self.options.seed}",
            *self.options.sizes.changes,
            *changes,
        )
        return load_recipe(student.recipe, registry=self.registry, overrides=own)

    def teacher_figures(self) -> Mapping[str, Any]:
        """Held-out figures of the teacher itself, and its size."""
        size = sum(file.stat().st_size for file in self.teacher.glob("*.safetensors"))
        return {**self._evaluate(self._loaded), "bytes": size, "bits": 16.0}

    def time_steps(self, student: Student) -> Mapping[str, float]:
        """Seconds and tokens of a step, from a few that are thrown away."""
        steps = self.options.sizes.probe_steps + 1
        changes = ("training.start=model", "training.max_seconds=null", f"training.max_steps={steps}")
        recipe = self.recipe(student, *changes)
        return probe(recipe, self._training, self.options.output, self.registry)

    def round(self, student: Student) -> Mapping[str, Any]:
        """Pack the teacher as it is, by the quantizers of the recipe, and measure."""
        folder = self.options.output / student.name / "rounded"
        pack_model(self.recipe(student), registry=self.registry, output=folder)
        return self._packed_figures(folder)

    def calibrate(self, student: Student) -> Mapping[str, Any]:
        """Pack the teacher, rounded on some of the dialogues that students are trained on, and measure."""
        folder, recipe = self._calibrated(student), self.recipe(student)
        assert recipe.data is not None
        starts_there = recipe.training.start == "calibrated" and recipe.training.start_samples
        rows = starts_there or self.options.sizes.calibration_rows
        pack_calibrated(recipe, registry=self.registry, output=folder, data=recipe.data, samples=rows)
        return self._packed_figures(folder)

    def train(self, student: Student, plan: Mapping[str, float]) -> Mapping[str, Any]:
        """Train by the recipe for the seconds or steps of the plan, and measure; what is calibrated is not done again.

        Raises:
            KeyboardInterrupt: it was stopped; what is done is saved, and the next call goes on from there.
        """
        steps = self.options.sizes.steps
        change = f"training.max_seconds={plan['seconds']:.0f}" if steps is None else f"training.max_steps={steps}"
        changes = (change,) if steps is None else (change, "training.max_seconds=null")
        if self.recipe(student).training.start == "calibrated":
            changes += (f"training.start={_quoted(self._calibrated(student))}",)
        folder = self.options.output / student.name / "run"
        begun = (folder / PACKED).is_dir() or not any((folder / CHECKPOINTS).glob("checkpoint-*"))
        if begun:
            shutil.rmtree(folder, ignore_errors=True)
        result = train(
            self.recipe(student, *changes),
            registry=self.registry,
            output=folder,
            resume=not begun,
            data=self._training,
            console=self.console,
        )
        if result.checkpoint is None:
            raise KeyboardInterrupt
        trained = {"steps": result.steps, "trained_tokens": result.tokens, "seconds": result.seconds}
        return {**self._packed_figures(result.checkpoint), **trained}

    def _calibrated(self, student: Student) -> Path:
        return self.options.output / student.name / "calibrated"

    def _packed_figures(self, folder: Path) -> dict[str, Any]:
        verify_checkpoint(folder, registry=self.registry).raise_if_damaged()
        model = load_model(folder, dtype=torch.float32, registry=self.registry).to(pick_device())
        size = sum(file.stat().st_size for file in folder.glob("*.safetensors"))
        weights = self._loaded.num_parameters()
        return {**self._evaluate(model), "bytes": size, "bits": 8 * size / weights}

    def _evaluate(self, model: Any) -> dict[str, Any]:
        recipe = self._written(self.options.students[0])
        figures = evaluate_model(
            model,
            self._loaded,
            self._data.held_out,
            adapter=self._models.teacher_adapter,
            batch_size=recipe.evaluation.batch_size,
            batches=recipe.evaluation.batches,
            pad_token_id=self._models.teacher.tokenizer.pad_token_id or 0,
        )
        return figures.to_dict()

    @cached_property
    def _models(self) -> Models:
        return Models(ModelSection(name_or_path=str(self.teacher)), self.registry)

    @cached_property
    def _loaded(self) -> Any:
        return self._models.load_teacher(device=pick_device())

    @cached_property
    def _training(self) -> Data:
        """Rows without the held-out ones: these are measured on the packed file, not at the end of training."""
        return replace(self._data, held_out=None)

    @cached_property
    def _data(self) -> Data:
        section = self._written(self.options.students[0]).data
        assert section is not None
        return load_data(section, self._models.teacher.tokenizer)


def _quoted(path: Path) -> str:
    """A path as a YAML string."""
    return "'" + str(path).replace("'", "''") + "'"
