"""`edgerazor quickstart`: teacher, rounded baselines, distilled students, reload, evaluation, text and a report."""

import json
import platform
import shutil
import time
from contextlib import ExitStack
from dataclasses import replace
from importlib import resources
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from edgerazor.checkpoint import PackResult, load_model, pack_model, verify_checkpoint
from edgerazor.core.claims import claimed
from edgerazor.core.registry import Registry
from edgerazor.core.run_folder import CHECKPOINTS, PACKED
from edgerazor.data import load_data
from edgerazor.errors import CheckpointError, EdgeRazorError
from edgerazor.evaluate.checkpoints import EvaluationResult, evaluate_model
from edgerazor.inference.generate import GenerationSettings, generate
from edgerazor.kernels.processor import processor_name
from edgerazor.models.load import Models, pick_device, plan_recipe
from edgerazor.models.transformers_runtime import TransformersRuntime
from edgerazor.quickstart import variants
from edgerazor.quickstart.corpus import load_corpus
from edgerazor.quickstart.exports import Comparison, export_students
from edgerazor.quickstart.precision import bf16_is_faster
from edgerazor.quickstart.report import write_report
from edgerazor.quickstart.results import Results, Row
from edgerazor.quickstart.variants import Setting, Variant, data_section, recipe_of
from edgerazor.report.extra import check_report_extra
from edgerazor.schemas.data import DataSection
from edgerazor.schemas.model import ModelSection
from edgerazor.schemas.recipe import Recipe, load_recipe
from edgerazor.training import train

DEFAULT_BUDGET = 280.0
SECONDS_FOR_THE_END = 55.0
SMALLEST_TRAINING_SHARE = 0.5
PROMPT = "def load(self, path):\n    "


def run_quickstart(
    output: str | Path,
    *,
    registry: Registry,
    budget: float = DEFAULT_BUDGET,
    smoke: bool = False,
    data: Path | None = None,
    train_teacher: float | None = None,
    seed: int = 0,
    console: Console | None = None,
) -> Results:
    """Run the main job end to end, offline, within a wall-clock budget.

    Args:
        output: folder for corpus, checkpoints and report; an earlier quickstart there is replaced.
        registry: loaded plugins.
        budget: seconds for everything but training a teacher.
        smoke: two seconds of training each and few held-out batches, to see that everything works.
        data: text file or folder instead of the standard library's sources.
        train_teacher: seconds to train a new teacher; None takes the one that ships with the package.
        seed: of data order and training.
        console: where progress goes; None is standard output.

    Raises:
        EdgeRazorError: a stage could not do its work, or another process writes into the folder.
    """
    with claimed(Path(output), inside=True):
        return _Quickstart(Path(output), budget, smoke, seed, console or Console(), registry).run(data, train_teacher)


class _Quickstart:
    def __init__(self, output: Path, budget: float, smoke: bool, seed: int, console: Console, registry: Registry):
        self.registry = registry
        self.output, self.budget, self.smoke, self.seed, self.console = output, budget, smoke, seed, console
        self.results = Results()
        self.started = time.monotonic()
        self.seconds_per_evaluation = 0.0

    def run(self, data: Path | None, train_teacher: float | None) -> Results:
        check_report_extra()
        with ExitStack() as stack:
            self._prepare(data, train_teacher, stack)
            self._teacher_row()
            rounding = time.monotonic()
            for variant in variants.ROUNDED:
                self._rounded(variant)
            self.seconds_per_evaluation = 1.5 * (time.monotonic() - rounding) / len(variants.ROUNDED)
            steps: dict[float, int] = {}
            for variant in variants.DISTILLED:
                steps[variant.bits] = self._trained(variant, seconds=self._seconds(variant))
            self._trained(variants.CROSS_ENTROPY, steps=steps[variants.CROSS_ENTROPY.bits])
            self._write_text()
            self._export()
            self.results.machine |= {"seconds": round(time.monotonic() - self.started, 1)}
            return self._report()

    def _prepare(self, data: Path | None, train_teacher: float | None, stack: ExitStack) -> None:
        self.output.mkdir(parents=True, exist_ok=True)
        corpus = load_corpus(data, seed=self.seed)
        training, held_out = corpus.write(self.output / "corpus")
        teacher = self._teacher_folder(corpus, train_teacher, stack)
        device = pick_device()
        batches, rows = (2, 4) if self.smoke else (10, 16)
        self.setting = Setting(teacher, training, held_out, self.seed, False, device.type == "cpu", batches, rows)
        models = Models(ModelSection(name_or_path=str(teacher)), self.registry)
        self.tokenizer: Any = models.teacher.tokenizer
        self.teacher = models.load_teacher(device=device)
        self.adapter = models.teacher_adapter
        self.data = load_data(DataSection.model_validate(data_section(self.setting)), self.tokenizer)
        self.setting = replace(self.setting, bf16=bf16_is_faster(self.teacher, device))
        self.results.machine |= {
            "processor": processor_name() if device.type == "cpu" else torch.cuda.get_device_name(),
            "threads": torch.get_num_threads(),
            "python": platform.python_version(),
            "torch": torch.__version__,
            "precision": "bf16 autocast" if self.setting.bf16 else "float32",
            "data": corpus.origin,
            "seed": self.seed,
            "budget": self.budget,
        }
        self._say(f"corpus: {corpus.origin}, {len(corpus.training)} documents, {len(corpus.held_out)} held out")

    def _teacher_folder(self, corpus: Any, seconds: float | None, stack: ExitStack) -> Path:
        if seconds is None:
            shipped = stack.enter_context(resources.as_file(resources.files("edgerazor.quickstart") / "teacher"))
            if not (shipped / "config.json").exists():
                raise CheckpointError(
                    f"{shipped}: the shipped teacher is missing; train one with --train-teacher SECONDS"
                )
            return shipped
        from edgerazor.quickstart.pretrain import PretrainSettings, pretrain, save_teacher

        self._say(f"training a 16-bit teacher for {seconds:g} s")
        settings = PretrainSettings(seconds=seconds, seed=self.seed, device=str(pick_device()))
        save_teacher(*pretrain(corpus, settings, report=self._say), self.output / "teacher")
        self.started = time.monotonic()
        return self.output / "teacher"

    def _seconds(self, variant: Variant) -> float:
        """The variant's share of what is left of the budget, but never much less than its share of all of it."""
        if self.smoke:
            return 2.0
        following = variants.DISTILLED[variants.DISTILLED.index(variant) :]
        left = self.budget - (time.monotonic() - self.started) - SECONDS_FOR_THE_END
        left -= (len(following) + 1) * self.seconds_per_evaluation
        shares = sum(variant.share for variant in following) + variants.CROSS_ENTROPY.share
        return max(left * variant.share / shares, SMALLEST_TRAINING_SHARE * self.budget * variant.share)

    def _evaluate(self, model: Any, batches: int) -> EvaluationResult:
        return evaluate_model(
            model,
            self.teacher,
            self.data.held_out,
            adapter=self.adapter,
            batch_size=self.setting.evaluation_rows,
            batches=batches,
            pad_token_id=self.tokenizer.pad_token_id,
        )

    def _teacher_row(self) -> None:
        figures = self._evaluate(self.teacher, self.setting.evaluation_batches)
        size = 2 * sum(parameter.numel() for parameter in self.teacher.parameters())
        self._add(Row("teacher, 16 bit", "teacher", 16, 16.0, size, **_figures(figures)))

    def _rounded(self, variant: Variant) -> None:
        recipe = self._recipe(recipe_of(variant, self.setting) | {"distillation": None})
        folder = self.output / variant.slug
        report = pack_model(recipe, registry=self.registry, output=folder)
        self._add(self._packed_row(variant, recipe, folder, report))

    def _trained(self, variant: Variant, *, seconds: float | None = None, steps: int = -1) -> int:
        """Train a variant, reload what was packed, check that it is the same model, and add its row."""
        recipe = self._recipe(recipe_of(variant, self.setting, seconds=seconds, steps=steps))
        run = self.output / variant.slug
        for earlier in (run / CHECKPOINTS, run / PACKED):
            shutil.rmtree(earlier, ignore_errors=True)
        result = train(recipe, registry=self.registry, output=run, data=self.data, console=self.console)
        if result.checkpoint is None:
            raise KeyboardInterrupt
        row = self._packed_row(variant, recipe, result.checkpoint, None, result.evaluation)
        self._add(replace(row, steps=result.steps, tokens=result.tokens, seconds=round(result.seconds, 1)))
        self.results.curves[variant.name] = [dict(entry) for entry in result.history if "loss" in entry]
        return result.steps

    def _packed_row(
        self, variant: Variant, recipe: Recipe, folder: Path, report: PackResult | None, trained: Any = None
    ) -> Row:
        verify_checkpoint(folder, registry=self.registry).raise_if_damaged()
        model = load_model(folder, dtype=torch.float32, registry=self.registry).to(self.teacher.device)
        if trained and not self.setting.bf16:
            again = self._evaluate(model, 2)
            if again.loss != trained["eval_loss"]:
                raise EdgeRazorError(
                    f"{folder}: reloaded, the loss is {again.loss}; before packing it was {trained['eval_loss']}"
                )
        figures = self._evaluate(model, self.setting.evaluation_batches)
        plan = plan_recipe(recipe, registry=self.registry)
        size = (folder / "model.safetensors").stat().st_size
        return Row(variant.name, variant.kind, variant.bits, plan.effective_bits, size, **_figures(figures))

    def _recipe(self, raw: dict[str, Any]) -> Recipe:
        return load_recipe(raw, registry=self.registry)

    def _add(self, row: Row) -> None:
        self.results.rows.append(row)
        self._say(
            f"{row.name:30s} {row.bits_per_weight:6.3f} bits per weight  {row.bytes / 1e6:6.3f} MB  "
            f"loss {row.loss:.4f} ({self.results.gap(row):+.4f})  KL {row.kl_teacher:.4f}"
        )

    def _write_text(self) -> None:
        for bits in (1.88, 1.58):
            row = self.results.row("distilled", bits)
            slug = next(variant.slug for variant in variants.DISTILLED if variant.bits == bits)
            if row is not None:
                text = generate(self.output / slug / PACKED, PROMPT, GenerationSettings(64), registry=self.registry)
                self.results.samples[row.name] = PROMPT + text
                self._say(f"[{row.name}] writes:\n{PROMPT}{text}")

    def _export(self) -> None:
        """Rows of the exported files themselves, where the exporters and engines are installed."""
        shared = Comparison(
            TransformersRuntime(self.teacher, self.tokenizer),
            self.data.held_out,
            self.setting.evaluation_batches * self.setting.evaluation_rows,
            PROMPT,
        )
        for row, text in export_students(self.output, shared, registry=self.registry, say=self._say):
            self._add(row)
            self.results.samples[row.name] = text

    def _report(self) -> Results:
        (self.output / "results.json").write_text(json.dumps(self.results.to_dict(), indent=1) + "\n", encoding="utf-8")
        paths = write_report(self.results, self.output)
        for claim in self.results.claims():
            self._say(f"{'holds:    ' if claim.holds else 'NOT HELD: '}{claim.text} ({claim.figures})")
        self._say(f"{self.results.machine['seconds']:.0f} s; report: {', '.join(str(path) for path in paths)}")
        return self.results

    def _say(self, text: str) -> None:
        self.console.print(text, highlight=False, markup=False, soft_wrap=True)


def _figures(result: EvaluationResult) -> dict[str, Any]:
    return {
        "loss": result.loss,
        "bits_per_byte": result.bits_per_byte,
        "kl_teacher": result.kl_teacher,
        "top1_agreement": result.top1_agreement,
    }
