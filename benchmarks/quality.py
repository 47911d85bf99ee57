"""The laboratory: many ways to make a low-bit model of one teacher, on equal tokens, in the same order, over seeds.

python benchmarks/quality.py --output laboratory                    (the quickstart's teacher and corpus)
python benchmarks/quality.py --output laboratory --teacher FOLDER --data TEXTS     (any other)

Every contestant with every seed is one unit, kept in the output as soon as it is measured: a run that is killed loses
one, and the same command goes on. A unit whose recipe has changed since is made anew. After each unit `results.json`,
`table.md` and `quality.svg` are written from what there is.
"""

import argparse
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from functools import cached_property
from importlib import resources
from pathlib import Path
from typing import Any

import torch
from contest import machine
from contestant_models import make_checkpoint
from original_config import NAME as ORIGINAL
from original_release import installed, told_original, train_and_measure
from quality_contestants import CONTESTANTS, LEARNING, Contestant
from quality_recipes import Setting, recipe_of
from quality_report import write_results
from quality_text import write_teacher_text
from rich.console import Console
from units import Units, digest_of

from edgerazor import load_plugins
from edgerazor.checkpoint import load_model
from edgerazor.core.claims import claimed
from edgerazor.data import Data, load_data
from edgerazor.evaluate.checkpoints import EvaluationResult, evaluate_model
from edgerazor.models.load import Models, pick_device
from edgerazor.quickstart.corpus import Corpus, load_corpus
from edgerazor.schemas.data import DataSection
from edgerazor.schemas.model import ModelSection
from edgerazor.schemas.recipe import Recipe, load_recipe
from edgerazor.training.allocation import allocated_recipe

CALIBRATION_DOCUMENTS = 160
ROWS_AT_ONCE = 16


class Laboratory:
    """Runs units that are not there yet.

    Args:
        output: folder of everything.
        setting: what contestants share.
        batches: of 16 held-out rows, on which a finished model is measured.
    """

    def __init__(self, output: Path, setting: Setting, batches: int, console: Console):
        self.output, self.setting, self.batches, self.console = output, setting, batches, console
        self.registry = load_plugins(external=False)
        self.device = pick_device()
        models = Models(ModelSection(name_or_path=str(setting.teacher)), self.registry)
        self.tokenizer: Any = models.teacher.tokenizer
        self.teacher: Any = models.load_teacher(device=self.device)
        self.adapter = models.teacher_adapter
        section = {"sources": [str(setting.sources["human"])], "held_out": [str(setting.held_out)]}
        self.held_out = load_data(
            DataSection.model_validate(section | {"sequence_length": setting.sequence_length}), self.tokenizer
        ).held_out
        self.units = Units(output / "units", [contestant.name for contestant in CONTESTANTS])
        self._weights = digest_of(setting.teacher)
        self._rows: dict[str, Data] = {}

    def run(self, contestants: Sequence[Contestant], seeds: Sequence[int]) -> list[dict[str, Any]]:
        """All units, the first seed of every contestant first; returns the figures of all that are kept."""
        teacher = self._teacher_unit
        found = [teacher]
        for place, seed in enumerate(seeds):
            for contestant in contestants:
                if place and not contestant.depends_on_seed:
                    continue
                self._unit(contestant, seed)
                found = [teacher, *self.units.kept()]
                write_results(self.output, found, machine() | {"torch": torch.__version__})
        return found

    @property
    def _calibration_rows(self) -> int:
        """As many as the others are trained on."""
        return self.setting.steps * self.setting.batch_size

    @cached_property
    def _teacher_unit(self) -> dict[str, Any]:
        size = 2 * sum(parameter.numel() for parameter in self.teacher.parameters())
        figures = self._measure(self.teacher)
        return {"name": "teacher", "method": "teacher", "bits": 16, "seed": 0, "bytes": size} | figures

    def _unit(self, contestant: Contestant, seed: int) -> None:
        raw = recipe_of(contestant, self.setting, seed)
        deciding = {**raw, "model": self._weights, "data": [contestant.data, self.setting.sequence_length, seed]}
        if contestant.kind not in LEARNING:
            deciding |= {"training": None, "evaluation": None}
            if contestant.kind != "rounded":
                deciding["rows"] = self._calibration_rows
        facts = {"name": contestant.name, "method": contestant.method, "bits": contestant.bits, "seed": seed}
        facts |= {"kind": contestant.kind, "data": contestant.data}
        told = [contestant.kind, deciding, self.batches]
        if contestant.kind == "original":
            told.append(told_original(contestant.bits, load_recipe(raw, registry=self.registry)))
        if contestant.allocated is not None and contestant.kind not in LEARNING:
            told.append({"allocation": dict(contestant.allocated)})
        unit, made = self.units.unit(facts, contestant.slug, told, lambda: self._make(contestant, raw))
        if not made:
            return
        self.console.print(
            f"seed {seed}  {contestant.name}: loss {unit['loss']:.4f}  KL {unit['kl_teacher']:.4f}  "
            f"{unit['seconds']:.0f} s",
            highlight=False,
        )
        self.console.file.flush()

    def _make(self, contestant: Contestant, raw: dict[str, Any]) -> dict[str, Any]:
        """Train or round a contestant, read it back from the disk, and measure it."""
        work = self.output / "work"
        shutil.rmtree(work, ignore_errors=True)
        recipe = load_recipe(raw, registry=self.registry)
        torch.manual_seed(recipe.training.seed)
        if contestant.kind == "original":
            return self._original(contestant, recipe, work)
        if contestant.kind not in LEARNING:
            recipe = self._allocated(recipe)
        calibration = {**raw["data"], "sources": [str(self.setting.sources["calibration"])], "held_out": None}
        data = self._data(recipe) if contestant.kind == "trained" else None
        started = time.perf_counter()
        folder, result = make_checkpoint(
            contestant.kind,
            recipe,
            work,
            self.registry,
            calibration=DataSection.model_validate(calibration),
            samples=self._calibration_rows,
            data=data,
        )
        seconds = time.perf_counter() - started
        model: Any = load_model(folder, dtype=torch.float32, registry=self.registry).to(self.device)
        size = (folder / "model.safetensors").stat().st_size
        figures = {"bytes": size, **_of_training(result), "seconds": seconds, **self._measure(model)}
        shutil.rmtree(work)
        return figures

    def _allocated(self, recipe: Recipe) -> Recipe:
        """The recipe of what is not trained, with the widths that training would choose."""
        if recipe.training.allocation is None:
            return recipe
        with tempfile.TemporaryDirectory(dir=self.output) as folder:
            return allocated_recipe(recipe, self._data(recipe), Path(folder), registry=self.registry, resumed=False)

    def _original(self, contestant: Contestant, recipe: Recipe, work: Path) -> dict[str, Any]:
        """Figures of the original release's student, whose file would be as large as the teacher's."""
        teacher = self._teacher_unit
        held_out = self.held_out.select(range(min(len(self.held_out), self.batches * ROWS_AT_ONCE)))
        figures = train_and_measure(
            contestant.bits,
            recipe,
            work,
            training=self._data(recipe).train,
            held_out=held_out,
            length=self.setting.sequence_length,
            rows_at_once=ROWS_AT_ONCE,
            teacher_loss=teacher["loss"],
        )
        shutil.rmtree(work)
        tokens = figures["steps"] * self.setting.batch_size * self.setting.sequence_length
        return {"bytes": teacher["bytes"], "tokens": tokens, "curve": [], **figures}

    def _data(self, recipe: Recipe) -> Data:
        """Rows of a recipe, which contestants of one seed and kind of text share; the last are kept."""
        assert recipe.data is not None
        key = recipe.data.model_dump_json()
        if key not in self._rows:
            self._rows = {key: load_data(recipe.data, self.tokenizer)}
        return self._rows[key]

    def _measure(self, model: Any) -> dict[str, Any]:
        result: EvaluationResult = evaluate_model(
            model,
            self.teacher,
            self.held_out,
            adapter=self.adapter,
            batch_size=ROWS_AT_ONCE,
            batches=self.batches,
            pad_token_id=self.tokenizer.pad_token_id or 0,
        )
        figures = ("loss", "kl_teacher", "top1_agreement", "bits_per_byte")
        return {name: getattr(result, name) for name in figures}


def _of_training(result: Any) -> dict[str, Any]:
    """Tokens, steps, and held-out loss and KL by tokens."""
    if result is None:
        return {"tokens": 0, "steps": 0, "curve": []}
    per_step = result.tokens / result.steps
    curve = [
        [round(entry["step"] * per_step), entry["eval_loss"], entry["eval_kl_teacher"]]
        for entry in result.history
        if "eval_loss" in entry
    ]
    return {"tokens": result.tokens, "steps": result.steps, "curve": curve}


def setting_of(arguments: argparse.Namespace, teacher: Path, contestants: Sequence[Contestant]) -> Setting:
    """Corpus, the teacher's own text where a contestant needs it, and group sizes that fit the teacher."""
    corpus = load_corpus(arguments.data, seed=0)
    human, held_out = corpus.write(arguments.output / "corpus")
    config = json.loads((teacher / "config.json").read_text(encoding="utf-8"))
    widths = (config["hidden_size"], config["intermediate_size"])
    sizes = (256, 192, 128, 96, 64, 32, 16)
    group = next(size for size in sizes if all(width % size == 0 for width in widths))
    head = config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]
    calibration = Corpus(corpus.training[:CALIBRATION_DOCUMENTS], corpus.held_out, corpus.origin)
    sources = {"human": human, "calibration": calibration.write(arguments.output / "corpus" / "calibration")[0]}
    if any(contestant.data != "human" for contestant in contestants):
        rows = arguments.steps * arguments.batch_size
        sources["teacher"] = write_teacher_text(
            teacher,
            corpus.training,
            arguments.output / "corpus" / f"teacher-{rows}x{arguments.length}.jsonl",
            rows,
            arguments.length,
        )
    return Setting(
        teacher=teacher,
        group_size=group,
        head_size=head,
        layers=config["num_hidden_layers"],
        sources=sources,
        held_out=held_out,
        steps=arguments.steps,
        sequence_length=arguments.length,
        batch_size=arguments.batch_size,
        learning_rate=arguments.learning_rate,
    )


def main(given: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--teacher", type=Path, help="folder of a 16-bit model; the quickstart's where it is left out")
    parser.add_argument("--data", type=Path, help="text file or folder; the standard library's sources by default")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=80)
    parser.add_argument("--batch-size", type=int, default=2)
    parser.add_argument("--length", type=int, default=256, help="tokens of a row")
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--batches", type=int, default=6, help="held-out batches of 16 rows")
    parser.add_argument("--only", nargs="+", help="contestants whose names contain one of these")
    arguments = parser.parse_args(given)
    wanted = [
        contestant
        for contestant in CONTESTANTS
        if not arguments.only or any(text in contestant.name for text in arguments.only)
    ]
    if not installed() and any(contestant.kind == "original" for contestant in wanted):
        print(f"left out: {ORIGINAL}, which is not installed; `python benchmarks/peers.py` does that", file=sys.stderr)
        wanted = [contestant for contestant in wanted if contestant.kind != "original"]
    if not wanted:
        parser.error("no contestant has such a name; there are: " + "; ".join(entry.name for entry in CONTESTANTS))
    with ExitStack() as stack:
        stack.enter_context(claimed(arguments.output, inside=True))
        shipped = resources.files("edgerazor.quickstart") / "teacher"
        teacher = arguments.teacher or stack.enter_context(resources.as_file(shipped))
        setting = setting_of(arguments, teacher, wanted)
        Laboratory(arguments.output, setting, arguments.batches, Console(width=160)).run(wanted, arguments.seeds)
    print((arguments.output / "table.md").read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
