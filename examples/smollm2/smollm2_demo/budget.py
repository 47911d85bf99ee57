"""What the minutes buy: a few timed steps of every student, and a plan that is shown before training begins."""

import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from transformers import TrainerCallback

from edgerazor import train
from edgerazor.core.registry import Registry
from edgerazor.data import Data
from edgerazor.errors import TrainingError
from edgerazor.schemas.recipe import Recipe
from smollm2_demo.options import Student

# Everything behind the plan but training, in seconds and in steps of the quicker student, since both take longer on a
# slower machine: an estimate from the processor time of stages and steps.
FIXED_SECONDS, IN_STEPS = 60.0, 60.0
LEAST_STEPS = 10


class _Stopwatch(TrainerCallback):
    """When each step ended."""

    def __init__(self) -> None:
        self.ends: list[float] = []

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.ends.append(time.monotonic())


def probe(recipe: Recipe, data: Data, folder: Path, registry: Registry) -> Mapping[str, float]:
    """Seconds and tokens of a step: the mean of all but the first of the recipe's few."""
    watch = _Stopwatch()
    with tempfile.TemporaryDirectory(dir=folder) as place:
        result = train(
            recipe, registry=registry, output=place, data=data, callbacks=[watch], console=Console(quiet=True)
        )
    steps = len(watch.ends) - 1
    return {"seconds": (watch.ends[-1] - watch.ends[0]) / steps, "tokens": result.tokens / result.steps}


def divide(
    minutes: float, elapsed: float, probes: Mapping[str, Mapping[str, float]], students: Sequence[Student]
) -> dict[str, dict[str, float]]:
    """Seconds of training for each student, and the steps and tokens that they buy.

    Args:
        minutes: for everything.
        elapsed: seconds that are gone.
        probes: of every student, from `probe`.
        students: that share what measuring leaves.

    Raises:
        TrainingError: too little is left for a few steps each.
    """
    after = FIXED_SECONDS + IN_STEPS * min(figures["seconds"] for figures in probes.values())
    left = 60 * minutes - elapsed - after
    least = max(LEAST_STEPS * probes[student.name]["seconds"] / student.share for student in students)
    if left < least:
        needed = (elapsed + after + least) / 60
        raise TrainingError(
            f"--minutes {minutes:g} is too short here: {elapsed:.0f} s are gone, exports and measuring take about "
            f"{after:.0f} s, and {LEAST_STEPS} steps of each student {least:.0f} s; give at least {needed + 0.1:.1f}"
        )
    shares = {student.name: left * student.share for student in students}
    return {
        name: _row(seconds, int(seconds / probes[name]["seconds"]), probes[name]) for name, seconds in shares.items()
    }


def fixed(steps: int, probes: Mapping[str, Mapping[str, float]]) -> dict[str, dict[str, float]]:
    """As `divide`, for so many steps of each student."""
    return {name: _row(steps * figures["seconds"], steps, figures) for name, figures in probes.items()}


def _row(seconds: float, steps: int, figures: Mapping[str, float]) -> dict[str, float]:
    tokens = steps * int(figures["tokens"])
    return {"seconds": seconds, "steps": steps, "tokens": tokens, "seconds_per_step": figures["seconds"]}


def show(plan: Mapping[str, Mapping[str, float]], minutes: float | None, console: Console) -> None:
    """The plan as a table."""
    title = "a few steps each (--smoke)" if minutes is None else f"what {minutes:g} minutes buy on this machine"
    table = Table("student", "s per step", "minutes", "steps", "tokens", title=title, title_justify="left")
    for name, row in plan.items():
        cells = (f"{row['seconds_per_step']:.2f}", f"{row['seconds'] / 60:.1f}", f"{row['steps']:.0f}")
        table.add_row(name, *cells, f"{row['tokens']:,.0f}")
    console.print(table)
