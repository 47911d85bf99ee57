"""How do time and memory grow with tokens, vocabulary and layers?

Four curves: the fused loss over tokens and over the vocabulary, and the whole step over tokens and over layers, each
next to plain forward KL on whole logits. Memory of the loss is what it needs beyond the gradients that it returns:
beyond one chunk it must be flat, once the teacher's logits are not kept either (they are while they fit `KEEP_BYTES`).

python benchmarks/growth.py [--quick] [--device cuda]
"""

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from answers import Case, serve
from contest import publish, show
from interleaved import (
    Result,
    add_arguments,
    circumstances,
    compete,
    entry,
    finish,
    load,
    milliseconds,
)
from rich.console import Console

FUSED, FUSED_AGAIN, WHOLE = "fused loss, ours", "fused loss, ours, teacher computed again", "whole logits, forward KL"
STEP, STEP_WHOLE = "step, ours", "step, forward KL"
LOSS_CURVES = {"tokens": (64, 128, 256, 512, 1024, 2048, 4096), "vocabulary": (8_000, 16_000, 32_000, 64_000, 128_000)}
STEP_CURVES = {"sequence": (64, 128, 256, 512), "layers": (2, 4, 8, 16)}
QUICK = {"tokens": (8, 64), "vocabulary": (320, 640), "sequence": (8, 16), "layers": (3, 4)}
FLAT = 1.25  # largest over smallest working memory beyond one chunk
COLUMNS = {
    "curve": "grows",
    "value": "to",
    "chunks": "chunks",
    **{f"{name}, ms": f"{name}, ms" for name in (FUSED, FUSED_AGAIN, WHOLE)},
    **{f"{name}, MiB": f"{name}, MiB" for name in (FUSED, FUSED_AGAIN, WHOLE)},
}
STEP_COLUMNS = {
    "curve": "grows",
    "value": "to",
    **{f"{name}, {unit}": f"{name}, {unit}" for unit in ("ms", "MiB") for name in (STEP, STEP_WHOLE)},
}


def worker(name: str, setup: Mapping[str, Any]) -> Callable[[str], Case]:
    """Opens the points of the curves: `curve value`."""

    def open_case(case: str) -> Case:
        curve, value = case.split()
        opener = _open_step if name in (STEP, STEP_WHOLE) else _open_loss
        return opener(name, curve, int(value), setup)

    return open_case


def _open_loss(name: str, curve: str, value: int, setup: Mapping[str, Any]) -> Case:
    import torch
    from loss_contestants import fused, whole_forward_kl
    from loss_inputs import make_inputs

    from edgerazor.kernels.projection import chunk_rows

    width = 64 if setup["quick"] else 512
    tokens, vocabulary = (value, 320 if setup["quick"] else 32_000) if curve == "tokens" else (512, value)
    if curve != "tokens" and setup["quick"]:
        tokens = 16
    inputs = make_inputs(1, tokens, vocabulary, width, dtype=torch.float32, device=setup["device"])
    chunk = chunk_rows(tokens, vocabulary, setup["device"])
    returned = 4 * width * (tokens + vocabulary) / 2**20
    options = {"keep_bytes": 0} if name == FUSED_AGAIN else {}
    run = whole_forward_kl(inputs) if name == WHOLE else fused(inputs, **options)
    return Case(lambda: run() and None, {"chunks": -(-tokens // chunk), "returned_mib": returned})


def _open_step(name: str, curve: str, value: int, setup: Mapping[str, Any]) -> Case:
    import torch
    from training_contestants import FORWARD_KL, OURS, Step
    from training_models import SHAPES, build_pair

    shape = dict(SHAPES["tiny" if setup["quick"] else "C"])
    if curve == "layers":
        shape["num_hidden_layers"] = value
    tokens = value if curve == "sequence" else 8 if setup["quick"] else 128
    pair = build_pair(shape, (2, tokens), device=setup["device"], dtype=torch.float32)
    step = Step(OURS if name == STEP else FORWARD_KL, pair, autocast=False)
    step.run()  # makes the optimizer's state
    return Case(step.run)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    add_arguments(parser, "growth", rounds=3)
    parser.set_defaults(allocators=["tuned"])
    given = parser.parse_args(arguments)
    if given.worker:
        serve(worker, given)
        return
    finish(given)
    before = load()
    curves = QUICK if given.quick else {**LOSS_CURVES, **STEP_CURVES}
    measured: dict[tuple[str, str], Result] = {}
    for names, kinds in (((FUSED, FUSED_AGAIN, WHOLE), LOSS_CURVES), ((STEP, STEP_WHOLE), STEP_CURVES)):
        cases = [f"{curve} {value}" for curve in kinds for value in curves[curve]]
        contestants = dict.fromkeys(names, sys.executable)
        measured |= compete(Path(__file__), worker, contestants, cases, given, allocator=given.allocators[0])
    facts = {
        **circumstances(given, before),
        "allocator": given.allocators[0],
        "flat_beyond_one_chunk": flat(measured),
        "measurements": [entry(*key, result) for key, result in measured.items()],
    }
    console = Console(width=160)
    steps = [_step_row(measured, f"{curve} {value}") for curve in STEP_CURVES for value in curves[curve]]
    rows = [_loss_row(measured, f"{curve} {value}") for curve in LOSS_CURVES for value in curves[curve]]
    publish(given.output, rows, COLUMNS, {**facts, "steps": steps}, console)
    show(steps, STEP_COLUMNS, console)
    console.print(f"flat beyond one chunk: {facts['flat_beyond_one_chunk']}", highlight=False)


def flat(measured: Mapping[tuple[str, str], Result]) -> dict[str, Any]:
    """Working memory of the fused loss at every number of tokens beyond one chunk, and whether it stays the same."""
    points = {
        case.split()[1]: _working(result)
        for (name, case), result in measured.items()
        if name == FUSED_AGAIN and case.startswith("tokens") and result.facts.get("chunks", 0) > 1
    }
    sizes = [size for size in points.values() if size is not None]
    within = bool(sizes) and max(sizes) <= FLAT * max(min(sizes), 1.0)
    return {"working_mib": points, "limit": FLAT, "holds": within if len(sizes) > 1 else None}


def _working(result: Result) -> float | None:
    peak = result.peak
    return None if peak is None else peak - result.facts.get("returned_mib", 0.0)


def _loss_row(measured: Mapping[tuple[str, str], Result], case: str) -> dict[str, Any]:
    curve, value = case.split()
    found = {name: measured.get((name, case), Result()) for name in (FUSED, FUSED_AGAIN, WHOLE)}
    return {
        "curve": curve,
        "value": value,
        "chunks": found[FUSED].facts.get("chunks"),
        **{f"{name}, ms": milliseconds(result.median) for name, result in found.items()},
        **{f"{name}, MiB": _working(result) for name, result in found.items()},
    }


def _step_row(measured: Mapping[tuple[str, str], Result], case: str) -> dict[str, Any]:
    curve, value = case.split()
    found = {name: measured.get((name, case), Result()) for name in (STEP, STEP_WHOLE)}
    return {
        "curve": curve,
        "value": value,
        **{f"{name}, ms": milliseconds(result.median) for name, result in found.items()},
        **{f"{name}, MiB": result.peak for name, result in found.items()},
    }


if __name__ == "__main__":
    main()
