"""Does automatic precision pay after training? Students of one size and as many steps, over several seeds.

python benchmarks/allocate.py --seeds 0 1 2 --steps 200 --output benchmarks/results/allocate.json
"""

import argparse
import json
import statistics
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from contest import machine
from rich.console import Console
from rich.table import Table

from edgerazor.allocate import AllocationSettings, allocate
from edgerazor.checkpoint import load_model
from edgerazor.core.discovery import load_plugins
from edgerazor.core.registry import Registry
from edgerazor.data import Data, load_data
from edgerazor.evaluate.checkpoints import evaluate_model
from edgerazor.models.load import Models
from edgerazor.quickstart import variants
from edgerazor.quickstart.corpus import load_corpus
from edgerazor.schemas.data import DataSection
from edgerazor.schemas.recipe import Recipe, load_recipe
from edgerazor.training import train

TARGET_BITS = 1.88
TEACHER = Path(variants.__file__).parent / "teacher"
UNIFORM = "every 8th row int4"
MODES: dict[str, dict[str, Any]] = {
    UNIFORM: {},
    "allocated": {},
    "allocated --free": {"free": True},
    "allocated --rows": {"rows": True},
    "allocated --free, whole matrices": {"free": True, "candidates": ("ternary", "int4")},
}
FIGURES = ("rounded_kl", "loss", "kl", "top1")
BATCHES, BATCH_SIZE = 10, 16


def run_seed(
    seed: int, steps: int, modes: Sequence[str], folder: Path, registry: Registry, console: Console
) -> dict[str, dict[str, float]]:
    """Allocate, train and measure the contestants with one seed of data order, drawn labels and training."""
    training, held_out = load_corpus(seed=seed).write(folder / "corpus")
    setting = variants.Setting(TEACHER, training, held_out, seed, False, True, BATCHES)
    variant = next(variant for variant in variants.DISTILLED if variant.bits == TARGET_BITS)
    content = variants.recipe_of(variant, setting, steps=steps)
    content["evaluation"] = {"batches": BATCHES, "batch_size": BATCH_SIZE}
    recipe = load_recipe(content, registry=registry)
    tokenizer = Models(recipe.model, registry).student.tokenizer
    data = load_data(DataSection.model_validate(variants.data_section(setting)), tokenizer)
    rows: dict[str, dict[str, float]] = {}
    for name in modes:
        found = allocate(
            recipe, AllocationSettings(TARGET_BITS, seed=seed, **MODES[name]), registry=registry, data=data
        )
        its_recipe, sized = (recipe, found.uniform) if name == UNIFORM else (found.recipe, found.allocated)
        assert sized.measured is not None and sized.measured.kl_teacher is not None
        figures = {"bits": sized.bits, "bytes": sized.bytes, "rounded_kl": sized.measured.kl_teacher}
        figures |= _trained(its_recipe, folder / f"student-{len(rows)}", data, registry)
        rows[name] = figures
        console.print(f"seed {seed}  {name}: {figures}", highlight=False, soft_wrap=True)
        for unit, option in found.choices if name != UNIFORM else ():
            console.print(f"    {unit.name}: {option.label}", highlight=False, soft_wrap=True)
    return rows


def _trained(recipe: Recipe, folder: Path, data: Data, registry: Registry) -> dict[str, float]:
    """Held-out figures of the packed student, read back."""
    result = train(recipe, registry=registry, output=folder, data=data, console=Console(quiet=True))
    if result.checkpoint is None:
        raise KeyboardInterrupt
    models = Models(recipe.model, registry)
    teacher: Any = models.load_teacher(device=torch.device("cpu"))
    figures = evaluate_model(
        load_model(result.checkpoint, dtype=torch.float32),
        teacher,
        data.held_out,
        adapter=models.student.adapter,
        batch_size=BATCH_SIZE,
        batches=BATCHES,
        pad_token_id=teacher.config.pad_token_id or 0,
    )
    assert figures.kl_teacher is not None and figures.top1_agreement is not None
    return {"loss": figures.loss, "kl": figures.kl_teacher, "top1": figures.top1_agreement, "steps": result.steps}


def summarise(runs: Mapping[str, dict[str, dict[str, float]]]) -> list[dict[str, Any]]:
    """One row per contestant: sizes, means and sample standard deviations, and seeds where it beats uniform."""
    summary = []
    for name in (name for name in MODES if all(name in run for run in runs.values())):
        mine = [run[name] for run in runs.values()]
        row: dict[str, Any] = {key: max(student[key] for student in mine) for key in ("bits", "bytes")} | {"name": name}
        for figure in FIGURES:
            values = [student[figure] for student in mine]
            spread = statistics.stdev(values) if len(values) > 1 else 0.0
            row[figure] = {"mean": statistics.fmean(values), "spread": spread}
        row["wins"] = sum(run[name]["kl"] < run[UNIFORM]["kl"] for run in runs.values() if UNIFORM in run)
        summary.append(row)
    return summary


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--only", nargs="+", choices=MODES, default=list(MODES), help="run these, keep the others")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results" / "allocate.json")
    arguments = parser.parse_args()
    console, registry = Console(width=160), load_plugins()
    earlier = json.loads(arguments.output.read_text()) if arguments.output.exists() else {}
    runs = earlier["runs"] if earlier.get("steps") == arguments.steps else {}
    for seed in arguments.seeds:
        with tempfile.TemporaryDirectory() as folder:
            found = run_seed(seed, arguments.steps, arguments.only, Path(folder), registry, console)
        runs[str(seed)] = runs.get(str(seed), {}) | found
    summary = summarise(runs)
    facts = {"machine": machine(), "torch": torch.__version__, "threads": torch.get_num_threads()}
    content = {**facts, "steps": arguments.steps, "target_bits": TARGET_BITS, "summary": summary, "runs": runs}
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    arguments.output.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    _print(summary, len(runs), arguments.steps, console)


def _print(summary: Sequence[Mapping[str, Any]], runs: int, steps: int, console: Console) -> None:
    table = Table("", "bits", "bytes", *FIGURES, "better than uniform", title=f"{steps} steps, {runs} seeds")
    for row in summary:
        cells = [f"{row[key]['mean']:.4f} ± {row[key]['spread']:.4f}" for key in FIGURES]
        table.add_row(row["name"], f"{row['bits']:.4f}", f"{row['bytes']:,}", *cells, f"{row['wins']} of {runs}")
    console.print(table)


if __name__ == "__main__":
    main()
