"""How long does fake quantization of one tensor take, next to the original release, torchao and the speed of a copy?

python benchmarks/fake_quantization.py [--quick] [--device cuda]
"""

import argparse
import sys
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
from original_config import INT4, INT8_INPUTS, MIXED, TERNARY
from original_config import NAME as ORIGINAL_NAME
from peers import interpreter
from rich.console import Console

SHAPES = {"ternary": [(1536, 512), (4096, 1024), (32000, 512)], "int8": [(512, 512)]}
SHAPES["int4"] = SHAPES["sqmp"] = SHAPES["ternary"]
ORIGINAL = {
    "ternary": (TERNARY, {"w_scale_factor": 2.0}),
    "int4": (INT4, {}),
    "int8": (INT8_INPUTS, {}),
    "sqmp": (MIXED, {"w_scale_factor": 2.0, "mixed_precision_prop": 0.125}),
}
NAMES = {
    "ours": sys.executable,
    "definition, compiled": sys.executable,
    ORIGINAL_NAME: interpreter("original"),
    "separate passes (our reconstruction)": sys.executable,
    "torchao QAT 0.18.0": interpreter("torchao"),
    "copy into a buffer": sys.executable,
    "fresh clone": sys.executable,
}
COLUMNS = {
    "allocator": "allocator",
    "case": "tensor; ms of each, median",
    **{name: name for name in NAMES},
    "versus_original": "ours ÷ original (rounds)",
    "versus_copy": "ours ÷ copy",
}


def cases(quick: bool, device: str) -> list[str]:
    """Names of the cases to measure: `kind dtype ROWSxCOLUMNS`."""
    kinds = ("ternary", "int4", "sqmp", "int8")
    shapes = {kind: [(16, 512)] if quick else SHAPES[kind] for kind in kinds}
    if device == "cuda" and not quick:
        shapes |= {kind: [(3072, 1024), (151_936, 1024)] for kind in kinds[:3]} | {"int8": [(4096, 1024)]}
    dtypes = ("float32",) if quick else ("float32", "bfloat16")
    return [f"{kind} {dtype} {r}x{c}" for kind in kinds for dtype in dtypes for r, c in shapes[kind]]


def worker(name: str, setup: Mapping[str, Any]) -> Callable[[str], Case]:
    """Opens the cases of one contestant."""
    return lambda case: open_case(name, case, setup["device"])


def open_case(name: str, case: str, device: str) -> Case:
    """Input, function, and the gate: how far its values are from the definition's."""
    import torch
    from plain import check, fake_quantized, relative

    kind, dtype, shape = case.split()
    rows, columns = map(int, shape.split("x"))
    torch.manual_seed(0)
    x = (0.02 * torch.randn(rows, columns)).to(device, getattr(torch, dtype)).requires_grad_(name in _TRAINED)
    run = _FUNCTIONS[name](kind, x)
    if name not in _TRAINED:
        return Case(run, short=True)
    value, expected = run().detach(), fake_quantized(x.detach(), kind)
    if name in _EXACT:
        return Case(run, {"changed": check("the value", float((value != expected).float().mean()), 0.0)}, short=True)
    # Others round scales elsewhere or not at all; the same job makes about the same error.
    errors = [relative(values, x.detach()) for values in (value, expected)]
    check("the error of quantization", abs(errors[0] / errors[1] - 1), 0.1)
    return Case(run, {"changed": relative(value, expected)}, short=True)


def _ours(kind: str, x: Any) -> Callable[[], Any]:
    from edgerazor.core.discovery import load_plugins

    registry = load_plugins(external=False)
    values: dict[str, dict[str, Any]] = {
        "ternary": {"name": "ternary"},
        "int4": {"name": "int", "bits": 4},
        "sqmp": {"name": "sqmp", "high_ratio": 0.125},
        "int8": {"name": "int", "bits": 8, "scale_dtype": "float32"},
    }
    quantizer = registry.build(registry.params("quantizer", group_size=256, **values[kind]))
    return lambda: quantizer.fake_quantize(x)


def _compiled(kind: str, x: Any) -> Callable[[], Any]:
    import torch
    from plain import GROUP, highest_codes, quantized

    groups = x.detach().reshape(-1, GROUP)
    torch._dynamo.mark_dynamic(groups, 0)
    highest = highest_codes(*x.shape).to(x.device) if kind == "sqmp" else None
    if highest is not None:
        torch._dynamo.mark_dynamic(highest, 0)
    compiled = torch.compile(quantized, dynamic=False)
    return lambda: compiled(groups, kind, highest).reshape(x.shape)


def _original(kind: str, x: Any) -> Callable[[], Any]:
    from edgerazor.qat.map import quant_function_map

    function, options = quant_function_map[ORIGINAL[kind][0]], {"epsilon": 1e-5, "block_size": 256, **ORIGINAL[kind][1]}

    # As its linear layer does it: weights are cloned first, and values pass straight through.
    def run() -> Any:
        value = function(x=x, **options) if kind == "int8" else function(w=x.data.clone(), **options)
        return x + (value - x).detach()

    return run


def _separate(kind: str, x: Any) -> Callable[[], Any]:
    from separate_passes import fake_quantize

    return lambda: fake_quantize(x, kind)


def _torchao(kind: str, x: Any) -> Callable[[], Any]:
    import torch
    from torchao.quantization.qat import IntxFakeQuantizeConfig
    from torchao.quantization.qat.fake_quantizer import IntxFakeQuantizer

    if kind not in ("int4", "int8"):
        raise NotImplementedError(f"torchao has no {kind}")
    quantizer = IntxFakeQuantizer(IntxFakeQuantizeConfig(getattr(torch, kind), group_size=256, is_symmetric=True))
    return lambda: quantizer(x)


def _copy(kind: str, x: Any) -> Callable[[], Any]:
    buffer = x.clone()
    return lambda: buffer.copy_(x)


_FUNCTIONS = dict(
    zip(NAMES, [_ours, _compiled, _original, _separate, _torchao, _copy, lambda _, x: x.clone], strict=True)
)
_TRAINED = tuple(NAMES)[:5]
_EXACT = tuple(NAMES)[:2]


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    add_arguments(parser, "fake_quantization", rounds=7)
    given = parser.parse_args(arguments)
    if given.worker:
        serve(worker, given)
        return
    finish(given)
    before = load()
    names = cases(given.quick, given.device)
    contestants = {name: python for name, python in NAMES.items() if not given.quick or "compiled" not in name}
    rows, entries = [], []
    for allocator in given.allocators:
        measured = compete(Path(__file__), worker, contestants, names, given, allocator=allocator)
        rows += [_row(measured, allocator, case) for case in names]
        entries += [entry(*key, result, allocator=allocator) for key, result in measured.items()]
    facts = {**circumstances(given, before), "measurements": entries}
    publish(given.output, rows, COLUMNS, facts, Console(width=200))


def _row(measured: Mapping[tuple[str, str], Result], allocator: str, case: str) -> dict[str, Any]:
    found = {name: measured.get((name, case), Result()) for name in NAMES}
    ours = found["ours"]
    return {
        "allocator": allocator,
        "case": case,
        **{name: milliseconds(result.median) for name, result in found.items()},
        "versus_original": shown_ratio(ratio(ours, found[ORIGINAL_NAME])),
        "versus_copy": ratio(ours, found["copy into a buffer"])["ratio"],
    }


if __name__ == "__main__":
    main()
