"""Low-bit image classifiers on real pictures: scikit-learn's 1797 handwritten digits, a small ViT and a small ResNet.

pip install scikit-learn
python benchmarks/digits.py --output digits

Teachers are trained first (minutes on two cores). Students of five widths from 4 to 1.58 bits are distilled, or trained
by cross entropy alone in as many steps, over seeds; beside them stand rounding and calibrated rounding. Every
contestant with every seed is a unit that is kept; the same command goes on where it was stopped. After each unit the
JSON and a table are written.
"""

import argparse
import json
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from contest import machine
from contestant_models import make_checkpoint
from digits_report import table
from digits_teachers import MIXUP, ROWS, data_section, make_teacher, write_pictures
from quality_contestants import BODIES, Contestant
from rich.console import Console
from units import Units, digest_of

from edgerazor import load_plugins
from edgerazor.checkpoint import load_model
from edgerazor.core.atomic import write_text
from edgerazor.core.claims import claimed
from edgerazor.evaluate.checkpoints import EvaluationResult, evaluate_model
from edgerazor.evaluate.task import task_of
from edgerazor.models.source import ModelSource
from edgerazor.schemas.data import DataSection
from edgerazor.schemas.recipe import load_recipe

FAMILIES = ("vit", "resnet")
WIDTHS = (4, 3, 2.79, 1.88, 1.58)
QAT = {"distillation": None}
CONTESTANTS: tuple[Contestant, ...] = (
    *(Contestant("rounding", bits, "rounded") for bits in WIDTHS),
    *(Contestant("calibrated rounding", bits, "calibrated") for bits in WIDTHS),
    *(Contestant("cross entropy alone", bits, changes=QAT) for bits in WIDTHS),
    *(Contestant("distilled", bits) for bits in WIDTHS),
)
CALIBRATION_ROWS = 256
RATE = 1e-3


def recipe_of(
    contestant: Contestant, teacher: Path, pictures: dict[str, Path], *, family: str, steps: int, seed: int
) -> dict[str, Any]:
    """The recipe of a preset, whose losses stay unless the contestant says otherwise."""
    bits = contestant.bits
    raw: dict[str, Any] = {
        "model": {"name_or_path": str(teacher)},
        "preset": f"{bits:g}-bit",
        "data": data_section(pictures, seed, {"mixup": MIXUP}),
        "training": {
            "learning_rate": RATE,
            "weight_decay": 0.0,
            "lr_scheduler_type": "cosine",
            "warmup_steps": 0.05,
            "max_steps": steps,
            "per_device_train_batch_size": ROWS,
            "logging_steps": 50,
            "save_strategy": "no",
            "use_cpu": True,
            "seed": seed,
        },
        "evaluation": {"batches": 1, "batch_size": ROWS},
    }
    if bits == 3:  # no preset is that wide
        raw["preset"] = "4-bit"
        raw["quantization"] = {
            "weights": [
                {"match": _ENDS[family], "quantizer": {**BODIES[4], "group_size": 256}},
                {"match": "*", "quantizer": {**BODIES[3], "group_size": 256}},
            ],
            "activations": {"name": "int", "bits": 8, "group_size": 256},
            "fit": ["weights", "activations"],
        }
    if family == "resnet":  # presets choose three stages, of which this one has two
        layers = {"name": "lafd", "metric": "norm", "top_k": 2}
        losses = [{"name": "eakld", "weight": 2.0}, {"name": "feature_mse", "weight": 0.1, "layers": layers}]
        raw["distillation"] = {"task_weight": 0.1, "losses": losses}
    if contestant.kind != "trained":
        raw["distillation"] = None
    return raw | dict(contestant.changes)


_ENDS = {"vit": ["*.projection", "classifier"], "resnet": ["*.embedder.embedder.convolution", "classifier.1"]}


class Digits:
    """Runs the units of one family that are not there yet.

    Args:
        output: folder of the family.
        family: "vit" or "resnet".
        pictures: folders of digits to learn from and held out.
        steps: of every trained contestant.
    """

    def __init__(self, output: Path, family: str, pictures: dict[str, Path], steps: int, console: Console):
        self.output, self.family, self.pictures, self.steps, self.console = output, family, pictures, steps, console
        self.registry = load_plugins(external=False)
        self.folder = make_teacher(family, output / "teacher", pictures, self.registry)
        source = ModelSource(str(self.folder), registry=self.registry)
        self.teacher: Any = source.load()
        self.adapter = source.adapter
        section = DataSection.model_validate(data_section(pictures, 0, {}))
        task = task_of(section, source, source.adapter.facts(source.config), source.config)
        self.collator, self.held_out = task.collator, task.load(section).held_out
        self.units = Units(output / "units", [contestant.name for contestant in CONTESTANTS])
        self._weights = digest_of(self.folder)

    def teacher_unit(self) -> dict[str, Any]:
        """Figures of the teacher, as 16-bit weights."""
        size = 2 * sum(parameter.numel() for parameter in self.teacher.parameters())
        facts = {"family": self.family, "name": "teacher", "method": "teacher", "bits": 16, "seed": 0, "bytes": size}
        return facts | self._measure(self.teacher)

    def unit(self, contestant: Contestant, seed: int) -> None:
        """Make, measure and keep one contestant of one seed."""
        raw = recipe_of(contestant, self.folder, self.pictures, family=self.family, steps=self.steps, seed=seed)
        facts = {"family": self.family, "name": contestant.name, "method": contestant.method}
        facts |= {"bits": contestant.bits, "seed": seed}
        deciding = {**raw, "model": self._weights, "data": seed}
        if contestant.kind != "trained":
            deciding["training"] = None
        unit, made = self.units.unit(
            facts, contestant.slug, [contestant.kind, deciding], lambda: self._make(contestant, raw)
        )
        if made:
            self.console.print(
                f"{self.family}  seed {seed}  {contestant.name}: top-1 {100 * unit['top1']:.2f} %  "
                f"KL {unit['kl_teacher']:.4f}  {unit['seconds']:.0f} s",
                highlight=False,
            )
            self.console.file.flush()

    def _make(self, contestant: Contestant, raw: dict[str, Any]) -> dict[str, Any]:
        """Train or round a contestant, read it back from the disk, and measure it."""
        work = self.output / "work"
        shutil.rmtree(work, ignore_errors=True)
        recipe = load_recipe(raw, registry=self.registry)
        torch.manual_seed(recipe.training.seed)
        data = DataSection.model_validate({**raw["data"], "images": {}, "held_out": None})
        started = time.perf_counter()
        folder, result = make_checkpoint(
            contestant.kind, recipe, work, self.registry, calibration=data, samples=CALIBRATION_ROWS
        )
        seconds = time.perf_counter() - started
        model: Any = load_model(folder, dtype=torch.float32, registry=self.registry)
        size = (folder / "model.safetensors").stat().st_size
        figures = {"bytes": size, "steps": result.steps if result else 0, "seconds": seconds, **self._measure(model)}
        shutil.rmtree(work)
        return figures

    def _measure(self, model: Any) -> dict[str, Any]:
        result: EvaluationResult = evaluate_model(
            model, self.teacher, self.held_out, adapter=self.adapter, batch_size=ROWS, collator=self.collator
        )
        return {name: getattr(result, name) for name in ("top1", "loss", "kl_teacher", "top1_agreement")}


def main(given: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True, help="folder of pictures, teachers and units")
    parser.add_argument("--json", type=Path, help="of all results; OUTPUT/digits.json where it is left out")
    parser.add_argument("--families", nargs="+", choices=FAMILIES, default=list(FAMILIES))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--only", nargs="+", help="contestants whose names contain one of these")
    arguments = parser.parse_args(given)
    wanted = [
        entry for entry in CONTESTANTS if not arguments.only or any(text in entry.name for text in arguments.only)
    ]
    if not wanted:
        parser.error("no contestant has such a name; there are: " + "; ".join(entry.name for entry in CONTESTANTS))
    console = Console(width=160)
    with claimed(arguments.output, inside=True):
        pictures = write_pictures(arguments.output / "pictures")
        runs = [
            Digits(arguments.output / family, family, pictures, arguments.steps, console)
            for family in arguments.families
        ]
        teachers = [run.teacher_unit() for run in runs]
        for place, seed in enumerate(arguments.seeds):
            for contestant in wanted:
                for run in runs if not place or contestant.depends_on_seed else []:
                    run.unit(contestant, seed)
                    kept = [unit for each in runs for unit in each.units.kept()]
                    _write(arguments, [*teachers, *kept])
    print((arguments.output / "table.md").read_text(encoding="utf-8"))


def _write(arguments: argparse.Namespace, units: list[dict[str, Any]]) -> None:
    facts = {"machine": machine(), "torch": torch.__version__, "threads": torch.get_num_threads()}
    content = {**facts, "steps": arguments.steps, "units": units}
    path = arguments.json or arguments.output / "digits.json"
    write_text(path, json.dumps(content, indent=1) + "\n")
    write_text(arguments.output / "table.md", table(units))


if __name__ == "__main__":
    main()
