"""Contestants that take turns, each in a process of its own: A B C, A B C, ...

Allocator, compiler and peak memory of one leak into no other. Where the gate of a case fails, no time is taken.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest.mock import patch

from answers import Answers, Case

ALLOCATORS: dict[str, dict[str, str]] = {
    "default": {},
    "tuned": {
        "THP_MEM_ALLOC_ENABLE": "1",
        "MALLOC_MMAP_THRESHOLD_": str(2**31),
        "MALLOC_TRIM_THRESHOLD_": str(2**33),
        "MALLOC_TOP_PAD_": str(2**26),
    },
}


@dataclass
class Result:
    """One contestant in one case.

    Attributes:
        facts: of the gate and of the warm-up.
        seconds: of every round.
        peak, highest: MiB of one run, above the level before it and of the whole process; or None.
        problem: why there is no time.
    """

    facts: dict[str, Any] = field(default_factory=dict)
    seconds: list[float] = field(default_factory=list)
    peak: float | None = None
    highest: float | None = None
    problem: str | None = None

    @property
    def median(self) -> float | None:
        """The median of the seconds of all rounds; None where nothing was measured."""
        return statistics.median(self.seconds) if self.seconds else None

    @property
    def least(self) -> float | None:
        """Seconds of the fastest round."""
        return min(self.seconds, default=None)


def add_arguments(parser: argparse.ArgumentParser, name: str, rounds: int) -> None:
    """The options that all these scripts share."""
    parser.add_argument("--quick", action="store_true", help="tiny shapes, two rounds: does the script still run?")
    parser.add_argument("--rounds", type=int, default=rounds)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--allocators", nargs="+", choices=list(ALLOCATORS), default=list(ALLOCATORS))
    parser.add_argument("--only", nargs="+", help="these contestants alone")
    parser.add_argument("--output", type=Path, help="the JSON; by default in benchmarks/results, or build/ if quick")
    parser.add_argument("--in-process", action="store_true", help="no child processes; for tests")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    parser.add_argument("--setup", type=json.loads, default={}, help=argparse.SUPPRESS)
    parser.set_defaults(name=name)


def finish(arguments: argparse.Namespace) -> None:
    """Fill in what depends on other options."""
    root = Path(__file__).parent
    if arguments.quick:
        arguments.rounds, arguments.allocators = min(arguments.rounds, 2), arguments.allocators[:1]
    if arguments.device == "cuda":
        arguments.allocators = ["default"]
    if arguments.output is None:
        suffix = "" if arguments.device == "cpu" else "_cuda"
        place = root.parent / "build" / "benchmarks" if arguments.quick else root / "results"
        arguments.output = place / f"{arguments.name}{suffix}.json"


def compete(
    script: Path,
    worker: Callable[[str, Mapping[str, Any]], Callable[[str], Case]],
    contestants: Mapping[str, str | Path | None],
    cases: Sequence[str],
    arguments: argparse.Namespace,
    *,
    setup: Mapping[str, Any] | None = None,
    variables: Mapping[str, Mapping[str, str]] | None = None,
    allocator: str = "default",
) -> dict[tuple[str, str], Result]:
    """Measure every contestant in every case, in turns.

    Args:
        script: is started with `--worker NAME --setup JSON`, once per contestant, and calls `serve`.
        worker: what that process does, by the contestant's name and the setup; called here if no process is wanted.
        contestants: interpreter by name; None where a peer is missing.
        variables: of the environment, by contestant.
        setup: handed to the workers.

    Returns:
        By contestant and case.
    """
    chosen = {name: python for name, python in contestants.items() if not arguments.only or name in arguments.only}
    results = {(name, case): Result(problem="missing") for case in cases for name in chosen}
    setup = {**(setup or {}), **{key: getattr(arguments, key) for key in ("quick", "device", "threads")}}
    workers: dict[str, _Process | _Here] = {}
    for name, python in chosen.items():
        own = (variables or {}).get(name, {})
        if python is not None and arguments.in_process:
            workers[name] = _Here(Answers(worker(name, setup), setup), own)
        elif python is not None:
            workers[name] = _Process(script, name, python, setup, {**ALLOCATORS[allocator], **own})
    try:
        for case in cases:
            for name, contestant in workers.items():
                answer = contestant.ask("open", case)
                results[name, case] = Result(answer.get("facts", {}), problem=answer.get("problem"))
            for _ in range(arguments.rounds):
                for name, contestant in workers.items():
                    _time_into(results[name, case], contestant, case)
            for name, contestant in workers.items():
                _memory_into(results[name, case], contestant, case)
                contestant.ask("close", case)
                _tell(allocator, name, case, results[name, case])
    finally:
        for contestant in workers.values():
            contestant.stop()
    return results


def _time_into(result: Result, worker: Any, case: str) -> None:
    if result.problem is None:
        answer = worker.ask("time", case)
        result.problem = answer.get("problem")
        result.seconds += [answer["seconds"]] if "seconds" in answer else []


def _memory_into(result: Result, worker: Any, case: str) -> None:
    if result.problem is None:
        answer = worker.ask("memory", case)
        result.problem = answer.get("problem")
        result.peak, result.highest = answer.get("peak"), answer.get("highest")


def _tell(allocator: str, name: str, case: str, result: Result) -> None:
    median = result.median
    figures = result.problem or ("nothing measured" if median is None else f"{1000 * median:.2f} ms")
    print(f"{allocator}  {case}  {name}: {figures}", file=sys.stderr, flush=True)


class _Here:
    """A contestant in this process, with its environment while it answers."""

    def __init__(self, answers: Answers, variables: Mapping[str, str]):
        self.answers, self.variables = answers, variables

    def ask(self, verb: str, case: str) -> dict[str, Any]:
        with patch.dict(os.environ, self.variables):
            return self.answers.ask(verb, case)

    def stop(self) -> None:
        self.answers.stop()


class _Process:
    """A contestant in a process of its own; questions and answers are lines of JSON."""

    def __init__(
        self, script: Path, name: str, python: str | Path, setup: Mapping[str, Any], variables: Mapping[str, str]
    ):
        threads = str(setup["threads"])
        environment = {**os.environ, **variables, "OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads}
        if str(python) != sys.executable:
            # Else this library would hide the original release, whose name it has.
            environment.pop("PYTHONPATH", None)
        command = [str(python), str(script), "--worker", name, "--setup", json.dumps(setup)]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment, bufsize=1
        )

    def ask(self, verb: str, case: str) -> dict[str, Any]:
        assert self.process.stdin is not None and self.process.stdout is not None
        try:
            self.process.stdin.write(json.dumps([verb, case]) + "\n")
            line = self.process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            return {"problem": f"its process ended with status {self.process.wait()}"}
        answer: dict[str, Any] = json.loads(line)
        return answer

    def stop(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()


def ratio(own: Result, other: Result) -> dict[str, float | None]:
    """How many times as long `own` takes: ratio of the medians, and the smallest and largest ratio of a round."""
    mine, theirs = own.median, other.median
    if mine is None or theirs is None:
        return {"ratio": None, "ratio_low": None, "ratio_high": None}
    rounds = [a / b for a, b in zip(own.seconds, other.seconds, strict=False)]
    return {"ratio": mine / theirs, "ratio_low": min(rounds), "ratio_high": max(rounds)}


def shown_ratio(figures: Mapping[str, float | None]) -> str | None:
    """A ratio and its spread for a table: `1.23 (1.10–1.31)`; None where nothing was measured."""
    if figures["ratio"] is None:
        return None
    return f"{figures['ratio']:.2f} ({figures['ratio_low']:.2f}–{figures['ratio_high']:.2f})"


def circumstances(arguments: argparse.Namespace, before: float) -> dict[str, Any]:
    """Versions, device, options and load of a measurement; `before` is the load when the script began."""
    import torch

    facts: dict[str, Any] = {"torch": torch.__version__, "device": arguments.device}
    if arguments.device == "cuda":
        facts["device"] = torch.cuda.get_device_name()
    after = load()
    facts |= {key: getattr(arguments, key) for key in ("threads", "rounds", "quick")}
    return {**facts, "load_before": before, "load_after": after}


def load() -> float:
    """Processes that wanted to run during the last minute."""
    return os.getloadavg()[0]


def milliseconds(seconds: float | None) -> float | None:
    """Seconds as milliseconds, for a table; None where nothing was measured."""
    return None if seconds is None else 1000 * seconds


def entry(name: str, case: str, result: Result, **more: Any) -> dict[str, Any]:
    """All that was measured of one contestant in one case, for the JSON."""
    return {
        **more,
        "name": name,
        "case": case,
        "problem": result.problem,
        "median": result.median,
        "least": result.least,
        "peak": result.peak,
        "highest": result.highest,
        **result.facts,
        "seconds": result.seconds,
    }
