"""What does a training step with trained scales cost next to one whose scales follow the data?

python benchmarks/trained_scales.py [--quick] [--threads 1] [--cases quickstart-256 wide-2048]

The gradient of scales goes over all weights once a step, whatever the number of tokens, so small steps feel it most.
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
from training_contestants import AS_TRAINED, INTERPRETERS, OURS, TRAINED_SCALES, VARIABLES

CASES = {
    "quickstart-256": ("quickstart", (1, 256)),
    "quickstart-2048": ("quickstart", (8, 256)),
    "wide-256": ("wide", (1, 256)),
    "wide-2048": ("wide", (8, 256)),
}
TINY = {"tiny-24": ("tiny", (2, 12))}
COLUMNS = {
    "case": "model, tokens a step",
    "name": "contestant",
    "ms": "ms, median",
    "least": "ms, least",
    "versus_ours": "÷ ours (rounds)",
    "problem": "remark",
}


def worker(name: str, setup: Mapping[str, Any]) -> Callable[[str], Case]:
    """Opens the cases of one contestant: a model and the tokens of a step."""
    return lambda case: open_case(name, case, setup)


def open_case(name: str, case: str, setup: Mapping[str, Any]) -> Case:
    """Models and gate; both contestants have the allocator and the optimizer of `edgerazor train`."""
    import torch
    from training_contestants import Step
    from training_gate import gate
    from training_models import SHAPES, build_pair

    from edgerazor.cli.process import keep_large_blocks

    keep_large_blocks()
    shape, batch = {**CASES, **TINY}[case]
    pair = build_pair(SHAPES[shape], batch, device=setup["device"], dtype=torch.float32)
    step = Step(name, pair, autocast=False, fused=True)
    facts = gate(step)
    return Case(step.run, facts)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    add_arguments(parser, "trained_scales", rounds=15)
    parser.add_argument("--cases", nargs="+", choices=list(CASES), default=list(CASES))
    given = parser.parse_args(arguments)
    if given.worker:
        serve(worker, given)
        return
    finish(given)
    before = load()
    cases = list(TINY) if given.quick else given.cases
    names = dict.fromkeys((OURS, TRAINED_SCALES), INTERPRETERS[OURS])
    variables = dict.fromkeys(names, VARIABLES[AS_TRAINED])
    measured = compete(Path(__file__), worker, names, cases, given, variables=variables)
    rows = [_row(name, case, own, measured.get((OURS, case), Result())) for (name, case), own in measured.items()]
    facts = {**circumstances(given, before), "measurements": [entry(*key, own) for key, own in measured.items()]}
    publish(given.output, rows, COLUMNS, facts, Console(width=140))


def _row(name: str, case: str, own: Result, ours: Result) -> dict[str, Any]:
    return {
        "case": case,
        "name": name,
        "ms": milliseconds(own.median),
        "least": milliseconds(own.least),
        "versus_ours": shown_ratio(ratio(own, ours)),
        "problem": own.problem,
    }


if __name__ == "__main__":
    main()
