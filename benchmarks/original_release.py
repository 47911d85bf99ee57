"""The original release 1.3.5 as a contestant: same teacher, rows, order, recipe and steps, in its own environment.

Its trainer is transformers', as ours is, so one seed gives one order of the rows. Keys and values stay at 32 bits, to
its advantage: with its quantized cache transformers would not keep the documents of a row apart. What is measured is
the student in float32 as it was trained, on a CPU, by its own rounding; the file that it would be saved as is 16-bit.
"""

import json
import os
import subprocess
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from original_config import NAME, distillation, quantization
from peers import interpreter
from safetensors.torch import save_file

from edgerazor.data import Collator
from edgerazor.schemas.recipe import Recipe

_OF_TRAINING = ("learning_rate", "weight_decay", "lr_scheduler_type", "warmup_steps", "max_steps", "seed")
_OF_TRAINING += ("per_device_train_batch_size", "dataloader_drop_last", "optim")
_OF_TRAINING += ("adam_beta1", "adam_beta2", "adam_epsilon", "max_grad_norm")
_COLUMNS = ("input_ids", "labels", "position_ids")
_ALIKE = 2e-3  # nats; a teacher that we hold in bfloat16 differs by less, one that sees other documents by more


def installed() -> bool:
    """Whether `benchmarks/peers.py` has made its environment."""
    return interpreter("original") is not None


def train_and_measure(
    bits: float,
    recipe: Recipe,
    work: Path,
    *,
    training: Iterable[Mapping[str, Any]],
    held_out: Iterable[Mapping[str, Any]],
    length: int,
    rows_at_once: int,
    teacher_loss: float,
) -> dict[str, Any]:
    """Figures of a student, as the laboratory keeps them; seconds are those of its process, from start to end.

    Args:
        bits: 1.58, 1.88, 2.79 or 4.
        recipe: the published one at that width.
        work: free folder.
        training: all rows, of which the trainer takes what its steps need.
        held_out: rows that are measured.
        length: tokens of a row; shorter ones are filled.
        teacher_loss: of the teacher on the held-out rows, by our own measure.

    Raises:
        RuntimeError: its process failed, or measures another loss of the teacher than we do.
    """
    work.mkdir(parents=True)
    _write_rows(training, length, work / "rows.safetensors")
    _write_rows(held_out, length, work / "held_out.safetensors")
    job = {"teacher": str(Path(recipe.model.name_or_path).resolve()), "rows_at_once": rows_at_once}
    job |= told_original(bits, recipe)
    (work / "job.json").write_text(json.dumps(job), encoding="utf-8")
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [str(interpreter("original")), str(Path(__file__).with_name("original_student.py")), str(work.resolve())]
    started = time.perf_counter()
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    seconds = time.perf_counter() - started
    if done.returncode:
        raise RuntimeError(f"{NAME}: its process ended with status {done.returncode}:\n{done.stderr[-2000:]}")
    figures: dict[str, Any] = json.loads((work / "figures.json").read_text(encoding="utf-8"))
    theirs = figures.pop("teacher_loss")
    if abs(theirs - teacher_loss) > _ALIKE:
        raise RuntimeError(f"{NAME}: the teacher has a loss of {theirs:.5f} there and of {teacher_loss:.5f} here")
    return {**figures, "seconds": seconds}


def told_original(bits: float, recipe: Recipe) -> dict[str, Any]:
    """What decides a student beside its teacher and rows: quantization, losses and training."""
    assert recipe.distillation is not None
    (group_size,) = {rule.quantizer.model_dump()["group_size"] for rule in recipe.quantization.weights}
    divergence, features = (loss.model_dump() for loss in recipe.distillation.losses)
    losses = distillation(
        recipe.distillation.task_weight,
        divergence["weight"],
        features["weight"],
        layers=features["layers"]["top_k"],
        uniform_support=divergence["uniform_support"],
        temperature=divergence["temperature"],
    )
    quantizers = quantization(bits, group_size)
    return {"quantization": quantizers, "distillation": losses, "training": _training_of(recipe)}


def _training_of(recipe: Recipe) -> dict[str, Any]:
    values = recipe.training.model_dump()
    told = {name: values[name] for name in _OF_TRAINING if values.get(name) is not None}
    return told | {"save_strategy": "no", "report_to": "none", "disable_tqdm": True, "use_cpu": True}


def _write_rows(rows: Iterable[Mapping[str, Any]], length: int, path: Path) -> None:
    """Rows as our own batches have them, int32 `[rows, length]` each."""
    batch = Collator(0, length=length)(list(rows))
    save_file({name: batch[name].int() for name in _COLUMNS}, path)
