"""How long does one distillation step take, and how much memory, next to full precision, forward KL and the original?

python benchmarks/training_step.py [--quick] [--device cuda]
"""

import argparse
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from answers import Case, serve
from contest import publish
from interleaved import (
    Result,
    add_arguments,
    circumstances,
    compete,
    entry,
    finish,
    load,
    milliseconds,
    ratio,
    shown_ratio,
)
from rich.console import Console
from training_contestants import AS_TRAINED, FORWARD_KL, FULL, INTERPRETERS, ORIGINAL, VARIABLES

COLUMNS = {
    "allocator": "allocator",
    "dtype": "compute",
    "name": "contestant",
    "ms": "ms, median",
    "least": "ms, least",
    "versus_full": "÷ full precision",
    "versus_kl": "÷ forward KL (rounds)",
    "versus_original": "÷ original (rounds)",
    "peak": "peak, MiB",
    "highest": "process, MiB",
    "kept": "kept for backward, MiB",
    "problem": "remark",
}
DTYPES = ("float32", "bfloat16")


def worker(name: str, setup: Mapping[str, Any]) -> Callable[[str], Case]:
    """Opens the cases of one contestant: the dtypes."""
    return lambda case: open_case(name, case, setup)


def open_case(name: str, case: str, setup: Mapping[str, Any]) -> Case:
    """Models, gate, and a first check that training lowers the loss."""
    import torch
    from answers import GateError
    from training_contestants import Step
    from training_gate import gate
    from training_models import BATCHES, SHAPES, build_pair

    shape = "tiny" if setup["quick"] else "G" if setup["device"] == "cuda" else "C"
    pair = build_pair(SHAPES[shape], BATCHES[shape], device=setup["device"], dtype=getattr(torch, case))
    options = {"micro_batches": setup["micro_batches"], "checkpointing": setup["micro_batches"] > 1}
    step = Step(name, pair, autocast=case == "bfloat16", **options)
    facts: dict[str, Any] = {"shape": shape, **gate(step)}
    losses = [float(step.run()) for _ in range(3)]
    if not losses[-1] < losses[0]:
        raise GateError(f"training does not lower the loss: {losses}")
    return Case(step.run, {**facts, "losses": losses})


def main(
    arguments: Sequence[str] | None = None,
    *,
    name: str = "training_step",
    script: Path = Path(__file__),
    description: str | None = __doc__,
    rounds: int = 7,
    micro_batches: Callable[[str], int] = lambda device: 1,
) -> None:
    parser = argparse.ArgumentParser(description=description)
    add_arguments(parser, name, rounds=rounds)
    given = parser.parse_args(arguments)
    if given.worker:
        serve(worker, given)
        return
    finish(given)
    before = load()
    setup = {"micro_batches": micro_batches(given.device)}
    rows, entries = [], []
    for allocator in given.allocators:
        # What the tuned allocator is told is what training tells it.
        names = {name: python for name, python in INTERPRETERS.items() if name != AS_TRAINED or allocator == "default"}
        # One dtype at a time: the processes of the contestants hold their models as long as they live.
        measured: dict[tuple[str, str], Result] = {}
        for dtype in DTYPES:
            measured |= compete(
                script, worker, names, [dtype], given, setup=setup, variables=VARIABLES, allocator=allocator
            )
        rows += [_row(measured, allocator, *key) for key in measured]
        entries += [entry(*key, result, allocator=allocator) for key, result in measured.items()]
    facts = {**circumstances(given, before), **setup, "measurements": entries}
    publish(given.output, rows, COLUMNS, facts, Console(width=180))


def _row(measured: Mapping[tuple[str, str], Result], allocator: str, name: str, dtype: str) -> dict[str, Any]:
    own = measured[name, dtype]
    against = {other: ratio(own, measured.get((other, dtype), Result())) for other in (FULL, FORWARD_KL, ORIGINAL)}
    return {
        "allocator": allocator,
        "dtype": dtype,
        "name": name,
        "ms": milliseconds(own.median),
        "least": milliseconds(own.least),
        "versus_full": against[FULL]["ratio"],
        "versus_kl": shown_ratio(against[FORWARD_KL]),
        "versus_original": shown_ratio(against[ORIGINAL]),
        "peak": own.peak,
        "highest": own.highest,
        "kept": own.facts.get("kept_mib"),
        "problem": own.problem,
    }


if __name__ == "__main__":
    main()
