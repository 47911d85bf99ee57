"""What do scales cost that every engine holds exactly? The same runs with both kinds of scales, seed by seed.

python benchmarks/scale_dtypes.py --steps 200 --seeds 0 1 2     (the quickstart's teacher and corpus)
python benchmarks/scale_dtypes.py --teacher FOLDER --data ROWS.jsonl --steps 60     (any other)
"""

import argparse
import itertools
import json
import statistics
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import torch
from contest import machine
from rich.console import Console
from rich.table import Table

from edgerazor import load_plugins, train
from edgerazor.checkpoint import load_model, pack_model
from edgerazor.core.registry import Registry
from edgerazor.core.run_folder import PACKED
from edgerazor.data import load_data
from edgerazor.evaluate.checkpoints import evaluate_model
from edgerazor.models.load import Models
from edgerazor.quickstart import variants
from edgerazor.quickstart.corpus import load_corpus
from edgerazor.schemas.recipe import load_recipe

SCALES = ("float16", "float16_bfloat16")
PRESETS = {"4-bit": 3e-4, "2.79-bit": 1e-3, "1.88-bit": 1e-3, "1.58-bit": 1e-3}


def own_recipe(preset: str, teacher: Path, corpus: Path, seed: int) -> dict[str, Any]:
    """The quickstart's recipe of a width, without steps."""
    bits = float(preset.removesuffix("-bit"))
    variant = next(variant for variant in variants.DISTILLED if variant.bits == bits)
    setting = variants.Setting(teacher, corpus / "training.jsonl", corpus / "held_out.jsonl", seed, False, True, 10, 16)
    return variants.recipe_of(variant, setting)


def preset_recipe(preset: str, teacher: Path, data: Path, seed: int, length: int, batch_size: int) -> dict[str, Any]:
    """The preset's recipe for any teacher, trained on rows of so many tokens."""
    return {
        "model": {"name_or_path": str(teacher)},
        "preset": preset,
        "data": {"sources": [{"path": str(data)}], "held_out": 0.1, "sequence_length": length, "seed": seed},
        "training": {"learning_rate": PRESETS[preset] / 10, "per_device_train_batch_size": batch_size}
        | {"warmup_steps": 0.05, "logging_steps": 10, "seed": seed, "save_strategy": "no", "use_cpu": True},
    }


def with_scales(raw: Mapping[str, Any], scales: str, steps: int, registry: Registry) -> Any:
    """The checked recipe with these scales for all weights."""
    raw = {**raw, "training": {**raw["training"], "max_steps": steps}}
    filled = load_recipe(raw, registry=registry).to_dict()
    for rule in filled["quantization"]["weights"]:
        rule["quantizer"]["scale_dtype"] = scales
    return load_recipe(filled, registry=registry)


def measure(raw: Mapping[str, Any], steps: int, batches: int, registry: Registry) -> Iterator[tuple[str, str, float]]:
    """Kind of student, scales and held-out loss: rounded, then distilled."""
    first = with_scales(raw, SCALES[0], steps, registry)
    models = Models(first.model, registry)
    data = load_data(first.data, models.teacher.tokenizer)
    for scales in SCALES:
        recipe = with_scales(raw, scales, steps, registry)
        with tempfile.TemporaryDirectory() as work:
            rounded, run = Path(work) / "rounded", Path(work) / "run"
            pack_model(recipe, registry=registry, output=rounded)
            train(recipe, registry=registry, output=run, data=data, console=Console(quiet=True))
            for kind, folder in (("rounded", rounded), ("distilled", run / PACKED)):
                student: Any = load_model(folder, dtype=torch.float32, registry=registry)
                size = {"adapter": models.teacher_adapter, "batches": batches, "batch_size": 4}
                yield kind, scales, evaluate_model(student, None, data.held_out, **size).loss


def summarise(losses: Mapping[tuple[str, str], Mapping[str, Sequence[float]]]) -> list[dict[str, Any]]:
    """One row per width and kind: mean losses, and what the other scales cost, with its standard error over seeds."""
    rows = []
    for (preset, kind), found in losses.items():
        costs = [other - usual for usual, other in zip(*(found[scales] for scales in SCALES), strict=True)]
        spread = statistics.stdev(costs) / len(costs) ** 0.5 if len(costs) > 1 else float("nan")
        means = {scales: statistics.fmean(found[scales]) for scales in SCALES}
        row = {"student": f"{preset}, {kind}", **means, "cost": statistics.fmean(costs), "standard_error": spread}
        rows.append(row)
    return rows


def main(given: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--teacher", type=Path)
    parser.add_argument("--data", type=Path, help="rows for a teacher of your own")
    parser.add_argument("--presets", nargs="+", default=["4-bit", "1.88-bit", "1.58-bit"], choices=PRESETS)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--length", type=int, default=512, help="tokens of a row of --data")
    parser.add_argument("--batch-size", type=int, default=2, help="rows of --data in a step")
    parser.add_argument("--batches", type=int, default=40, help="of four rows, held out")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results" / "scale_dtypes.json")
    arguments = parser.parse_args(given)
    registry, console = load_plugins(), Console()
    losses: dict[tuple[str, str], dict[str, list[float]]] = {}
    with tempfile.TemporaryDirectory() as work, resources.as_file(_shipped()) as shipped:
        for seed, preset in itertools.product(arguments.seeds, arguments.presets):
            if arguments.teacher is None:
                load_corpus(None, seed=seed).write(corpus := Path(work) / str(seed))
                raw = own_recipe(preset, shipped, corpus, seed)
            else:
                raw = preset_recipe(
                    preset, arguments.teacher, arguments.data, seed, arguments.length, arguments.batch_size
                )
            for kind, scales, loss in measure(raw, arguments.steps, arguments.batches, registry):
                found = losses.setdefault((preset, kind), {scales: [] for scales in SCALES})
                found[scales].append(loss)
                console.print(f"seed {seed} {preset} {kind} {scales}: {loss:.5f}", highlight=False)
    rows = summarise(losses)
    content = {"machine": machine(), "torch": torch.__version__, "steps": arguments.steps, "seeds": arguments.seeds}
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    arguments.output.write_text(json.dumps(content | {"rows": rows}, indent=1) + "\n", encoding="utf-8")
    table = Table(*rows[0])
    for row in rows:
        table.add_row(*(f"{value:+.5f}" if isinstance(value, float) else value for value in row.values()))
    console.print(table)


def _shipped() -> Any:
    return resources.files("edgerazor.quickstart") / "teacher"


if __name__ == "__main__":
    main()
