"""Where does the time of one distillation step go?

python benchmarks/profile_step.py [--quick] [--device cuda] [--dtype bfloat16] [--micro-batches 4]

Every operation that torch.profiler sees is counted to the innermost part that it ran in. Fake quantization is what the
kernels of edgerazor.kernels.dispatch do, wherever they are called. On CUDA times are those of the device.
"""

import argparse
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

from contest import publish
from interleaved import add_arguments, circumstances, finish, load
from rich.console import Console

TEACHER, STUDENT, LOSS = "teacher", "student forward", "loss"
BACKWARD, OPTIMIZER, QUANTIZATION, REST = "backward", "optimizer", "fake quantization", "rest"
PARTS = (TEACHER, STUDENT, LOSS, BACKWARD, OPTIMIZER, QUANTIZATION, REST)
COLUMNS = {"name": "part", "ms": "ms a step", "share": "% of the step", "top": "its largest operations, ms"}


def recorded(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """The function as a part of the step."""
    from torch.profiler import record_function

    def run(*arguments: Any, **options: Any) -> Any:
        with record_function(name):
            return function(*arguments, **options)

    return run


@contextmanager
def parts_recorded(step: Any) -> Iterator[None]:
    """Mark the parts of a step of ours."""
    import torch

    from edgerazor.core.tensor import QuantizedTensor
    from edgerazor.distill.fused import FusedPass
    from edgerazor.kernels import dispatch, reference
    from edgerazor.plugins.losses.layerwise import LayerwiseLoss

    marked = [
        (TEACHER, step.teacher, "forward"),
        (STUDENT, step.student, "forward"),
        (LOSS, FusedPass, "__call__"),
        (LOSS, LayerwiseLoss, "__call__"),
        (BACKWARD, torch.Tensor, "backward"),
        (OPTIMIZER, step.optimizer, "step"),
        (QUANTIZATION, reference, "dequantize"),
        (QUANTIZATION, QuantizedTensor, "dequantize"),
        *((QUANTIZATION, dispatch, name) for name in ("quantize", "fake_quantize", "quantize_dequantize")),
    ]
    with ExitStack() as stack:
        for part, owner, name in marked:
            stack.enter_context(patch.object(owner, name, recorded(part, getattr(owner, name))))
        yield


def part_of(event: Any, main_thread: int) -> str:
    """The innermost part that an operation ran in. CUDA runs the backward pass in a thread of its own."""
    inner = event
    while inner is not None:
        if inner.name in PARTS:
            return str(inner.name)
        event, inner = inner, inner.cpu_parent
    return REST if event.thread == main_thread else BACKWARD


def profiled(step: Any, steps: int, device: str) -> list[dict[str, Any]]:
    """One row per part, the most expensive first."""
    from torch.profiler import ProfilerActivity, profile, record_function

    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if device == "cuda" else [])]
    with parts_recorded(step), profile(activities=activities) as trace:
        for _ in range(steps):
            with record_function(REST):
                step.run()
    events = list(trace.events())
    main_thread = next(event.thread for event in events if event.name == REST)
    spent: dict[str, Counter[str]] = {part: Counter() for part in PARTS}
    for event in events:
        used = event.self_device_time_total if device == "cuda" else event.self_cpu_time_total
        spent[part_of(event, main_thread)][event.name] += used / 1000 / steps
    whole = sum(sum(operations.values()) for operations in spent.values())
    rows = []
    for part, operations in sorted(spent.items(), key=lambda pair: -sum(pair[1].values())):
        total = sum(operations.values())
        largest = ", ".join(f"{name} {used:.1f}" for name, used in operations.most_common(3) if used > 0)
        rows.append({"name": part, "ms": total, "share": 100 * total / whole, "top": largest})
    return rows


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    add_arguments(parser, "profile_step", rounds=5)
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--micro-batches", type=int, default=1)
    given = parser.parse_args(arguments)
    finish(given)
    before = load()
    import torch
    from training_contestants import OURS, Step
    from training_gate import gate
    from training_models import BATCHES, SHAPES, build_pair

    torch.set_num_threads(given.threads)
    shape = "tiny" if given.quick else "G" if given.device == "cuda" else "C"
    pair = build_pair(SHAPES[shape], BATCHES[shape], device=given.device, dtype=getattr(torch, given.dtype))
    autocast, checkpointing = given.dtype == "bfloat16", given.micro_batches > 1
    step = Step(OURS, pair, autocast=autocast, micro_batches=given.micro_batches, checkpointing=checkpointing)
    checked = gate(step)
    for _ in range(2):
        step.run()
    rows = profiled(step, given.rounds, given.device)
    facts = {**circumstances(given, before), "shape": shape, "dtype": given.dtype, **checked}
    publish(given.output, rows, COLUMNS, {**facts, "micro_batches": given.micro_batches}, Console(width=180))


if __name__ == "__main__":
    main()
