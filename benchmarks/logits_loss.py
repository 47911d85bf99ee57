"""How long does EAKLD take, from logits and fused with the head, next to the original, autograd, Liger, bare products?

`logits`: whole logits to loss and their gradient. `fused`: hidden states to loss and gradients of hidden states and
head, the task's cross entropy included.

python benchmarks/logits_loss.py [--quick] [--device cuda]
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
from loss_contestants import FLOORED, INTERPRETERS, LIGER, ORIGINAL, OURS, PRODUCTS, TASK, VARIABLES
from rich.console import Console

COLUMNS = {
    "allocator": "allocator",
    "case": "case",
    "name": "contestant",
    "ms": "ms, median",
    "least": "ms, least",
    "versus_original": "÷ original (rounds)",
    "versus_products": "÷ four products",
    "peak": "peak, MiB",
    "value": "value differs",
    "gradient": "gradient differs",
    "problem": "remark",
}
CASES = ("logits float32", "logits bfloat16", "fused float32", "fused bfloat16")
GATE_ROWS = 160


def worker(name: str, setup: Mapping[str, Any]) -> Callable[[str], Case]:
    """Opens the cases of one contestant."""
    return lambda case: open_case(name, case, setup)


def open_case(name: str, case: str, setup: Mapping[str, Any]) -> Case:
    """Inputs, the gate on some rows, and the job on all of them."""
    import torch
    from loss_contestants import build
    from loss_inputs import make_inputs

    what, dtype = case.split()
    size = (2, 12, 320, 64) if setup["quick"] else (4, 1024, 151_936, 1024) if setup["device"] == "cuda" else None
    inputs = make_inputs(*(size or (2, 256, 32_000, 512)), dtype=getattr(torch, dtype), device=setup["device"])
    facts = _gate(name, what, inputs.first(GATE_ROWS)) if name != PRODUCTS else {}
    run = build(name, what, inputs)
    return Case(lambda: run() and None, facts, short=True)


def _gate(name: str, what: str, inputs: Any) -> dict[str, Any]:
    """Value and gradients against the definition, in float64 from what the contestant starts with."""
    import torch
    from loss_contestants import build
    from loss_inputs import defined
    from plain import check, relative, row_divergences
    from separate_passes import FLOOR

    value, gradients = build(name, what, inputs)()
    doubles = inputs._replace(**{key: getattr(inputs, key).double() for key in inputs._fields[:4]})
    if what == "logits":
        leaves = [logits.double().requires_grad_() for logits in inputs.logits()[:1]]
        logits = (leaves[0], inputs.logits()[1].double())
    else:
        leaves = [doubles.hidden.requires_grad_(), doubles.weight.requires_grad_()]
        logits = doubles.logits()
    floor = FLOOR if name in FLOORED else None
    if name == LIGER:
        expected = row_divergences(*logits, inputs.labels).forward.mean()
    else:
        expected = defined(*logits, inputs, task=TASK if what == "fused" else 0.0, floor=floor)
    expected_gradients = torch.autograd.grad(expected, leaves)
    rounded = inputs.weight.dtype == torch.bfloat16
    # Both start from the same numbers, so float32 leaves roundings of sums: 4e-7 of the value and 7e-7 of a gradient
    # were measured on a CPU; of the peers that is not known. In bfloat16 gradients are rounded to 8 bits, and only ours
    # keeps the student's logits in float32. A wrong formula shows: a uniform support of 17 is off by 1e-3.
    exact = (1e-4, 2e-3) if name in (ORIGINAL, LIGER) else (1e-5, 1e-4)
    limits = exact if not rounded else (1e-2, 3e-2) if name == OURS else (5e-2, 2e-1)
    errors = [relative(gradient, other) for gradient, other in zip(gradients, expected_gradients, strict=True)]
    return {
        "value_error": check("the value", relative(value.detach(), expected.detach()), limits[0]),
        "gradient_error": check("a gradient", max(errors), limits[1]),
    }


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    add_arguments(parser, "logits_loss", rounds=7)
    given = parser.parse_args(arguments)
    if given.worker:
        serve(worker, given)
        return
    finish(given)
    before = load()
    contestants = {
        name: python for name, python in INTERPRETERS.items() if given.device == "cuda" or "Liger" not in name
    }
    rows, entries = [], []
    for allocator in given.allocators:
        measured = compete(Path(__file__), worker, contestants, CASES, given, variables=VARIABLES, allocator=allocator)
        rows += [_row(measured, allocator, *key) for key in measured]
        entries += [entry(*key, result, allocator=allocator) for key, result in measured.items()]
    publish(given.output, rows, COLUMNS, {**circumstances(given, before), "measurements": entries}, Console(width=180))


def _row(measured: Mapping[tuple[str, str], Result], allocator: str, name: str, case: str) -> dict[str, Any]:
    own = measured[name, case]
    original, products = (measured.get((other, case), Result()) for other in (ORIGINAL, PRODUCTS))
    return {
        "allocator": allocator,
        "case": case,
        "name": name,
        "ms": milliseconds(own.median),
        "least": milliseconds(own.least),
        "versus_original": shown_ratio(ratio(own, original)),
        "versus_products": ratio(own, products)["ratio"],
        "peak": own.peak,
        "value": _scientific(own.facts.get("value_error")),
        "gradient": _scientific(own.facts.get("gradient_error")),
        "problem": own.problem,
    }


def _scientific(value: float | None) -> str | None:
    return None if value is None else f"{value:.0e}"


if __name__ == "__main__":
    main()
