"""Contestants that take turns, each in a process of its own: A B C, A B C, ...

Allocator, compiler and peak memory of one leak into no other. A worker opens a case (inputs, correctness gate,
warm-up), then measures it whenever it is told to; where the gate fails, no time is taken.
"""

import argparse
import gc
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from contest import memory

ALLOCATORS: dict[str, dict[str, str]] = {
    "default": {},
    "tuned": {
        "THP_MEM_ALLOC_ENABLE": "1",
        "MALLOC_MMAP_THRESHOLD_": str(2**31),
        "MALLOC_TRIM_THRESHOLD_": str(2**33),
        "MALLOC_TOP_PAD_": str(2**26),
    },
}
SHORTEST = 0.03  # seconds; something shorter is repeated until a measurement takes this long


class GateError(Exception):
    """A result is not what it should be."""


@dataclass(frozen=True)
class Case:
    """What a worker measures.

    Attributes:
        run: does the job once.
        facts: of the gate and of the warm-up; written beside the times.
        short: repeated and averaged where it takes less than `SHORTEST`.
    """

    run: Callable[[], Any]
    facts: Mapping[str, Any] = field(default_factory=dict)
    short: bool = False


@dataclass
class Result:
    """One contestant in one case: gate and warm-up, every round, or why there is no time."""

    facts: dict[str, Any] = field(default_factory=dict)
    rounds: list[dict[str, float]] = field(default_factory=list)
    problem: str | None = None

    def median(self, key: str = "seconds") -> float | None:
        """Of all rounds; None where nothing was measured."""
        values = [one[key] for one in self.rounds if one.get(key) is not None]
        return statistics.median(values) if values else None

    def smallest(self) -> float | None:
        """The fastest round."""
        return min((one["seconds"] for one in self.rounds), default=None)


def add_arguments(parser: argparse.ArgumentParser, name: str, rounds: int) -> None:
    """The options that all these scripts share."""
    parser.add_argument("--quick", action="store_true", help="tiny shapes, two rounds: does the script still run?")
    parser.add_argument("--rounds", type=int, default=rounds)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--allocators", nargs="+", choices=list(ALLOCATORS), default=list(ALLOCATORS))
    parser.add_argument("--only", nargs="+", help="these contestants alone")
    parser.add_argument("--out", type=Path, help="the JSON; by default in benchmarks/results, or build/ if quick")
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
    if arguments.out is None:
        suffix = "" if arguments.device == "cpu" else "_cuda"
        place = root.parent / "build" / "benchmarks" if arguments.quick else root / "results"
        arguments.out = place / f"{arguments.name}{suffix}.json"


def compete(
    script: Path,
    worker: Callable[[str, Mapping[str, Any]], Callable[[str], Case]],
    contestants: Mapping[str, str | Path | None],
    cases: Sequence[str],
    arguments: argparse.Namespace,
    *,
    setup: Mapping[str, Any] | None = None,
    allocator: str = "default",
) -> dict[tuple[str, str], Result]:
    """Measure every contestant in every case, in turns.

    Args:
        script: is started with `--worker NAME --setup JSON`, once per contestant, and calls `serve`.
        worker: what that process does, by the contestant's name and the setup; called here if no process is wanted.
        contestants: interpreter by name; None where a peer is missing.
        setup: handed to the workers.

    Returns:
        By contestant and case.
    """
    chosen = {name: python for name, python in contestants.items() if not arguments.only or name in arguments.only}
    results = {(name, case): Result(problem="missing") for case in cases for name in chosen}
    setup = {**(setup or {}), **{key: getattr(arguments, key) for key in ("quick", "device", "threads")}}
    workers: dict[str, Any] = {}
    for name, python in chosen.items():
        if python is not None and arguments.in_process:
            workers[name] = Answers(worker(name, setup), setup)
        elif python is not None:
            workers[name] = _Process(script, name, python, setup, ALLOCATORS[allocator])
    try:
        for case in cases:
            for name, one in workers.items():
                answer = one.ask("open", case)
                results[name, case] = Result(answer.get("facts", {}), problem=answer.get("problem"))
            for _ in range(arguments.rounds):
                for name, one in workers.items():
                    _measure_into(results[name, case], one, case)
            for name, one in workers.items():
                one.ask("close", case)
                _tell(allocator, name, case, results[name, case])
    finally:
        for one in workers.values():
            one.stop()
    return results


def _measure_into(result: Result, worker: Any, case: str) -> None:
    if result.problem is None:
        answer = worker.ask("measure", case)
        result.problem = answer.get("problem")
        result.rounds += [answer["figures"]] if "figures" in answer else []


def _tell(allocator: str, name: str, case: str, result: Result) -> None:
    median = result.median()
    figures = result.problem or ("nothing measured" if median is None else f"{1000 * median:.2f} ms")
    print(f"{allocator}  {case}  {name}: {figures}", file=sys.stderr, flush=True)


class Answers:
    """A contestant: opens a case, measures it, closes it."""

    def __init__(self, open_case: Callable[[str], Case], setup: Mapping[str, Any]):
        import torch

        torch.set_num_threads(setup["threads"])
        self.open_case, self.device = open_case, setup["device"]
        self.case: Case | None = None
        self.repeats = 1

    def ask(self, verb: str, case: str) -> dict[str, Any]:
        """Facts, figures, or a problem."""
        try:
            if verb == "open":
                return {"facts": self._open(case)}
            if verb == "measure":
                assert self.case is not None
                return {"figures": _measure(self.case.run, self.device, self.repeats)}
            self.case = None
            gc.collect()
        except GateError as error:
            return {"problem": f"gate failed: {error}"}
        except NotImplementedError as error:
            return {"problem": str(error)}
        except Exception as error:
            return {"problem": f"{type(error).__name__}: {error}".splitlines()[0]}
        return {}

    def _open(self, name: str) -> dict[str, Any]:
        case = self.open_case(name)
        first, warm = (_seconds(case.run, self.device, 1) for _ in range(2))
        self.case = case
        self.repeats = max(1, min(1000, round(SHORTEST / max(warm, 1e-7)))) if case.short else 1
        return {**case.facts, "first_seconds": first}

    def stop(self) -> None:
        """Let go of the inputs."""
        self.case = None


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


def serve(worker: Callable[[str, Mapping[str, Any]], Callable[[str], Case]], arguments: argparse.Namespace) -> None:
    """The worker's side: answer until the other side hangs up. What libraries print goes to standard error."""
    lines = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    answers = Answers(worker(arguments.worker, arguments.setup), arguments.setup)
    for line in sys.stdin:
        lines.write(json.dumps(answers.ask(*json.loads(line))) + "\n")


def _seconds(run: Callable[[], Any], device: str, repeats: int) -> float:
    import torch

    synchronize = torch.cuda.synchronize if device == "cuda" else lambda: None
    synchronize()
    started = time.perf_counter()
    for _ in range(repeats):
        run()
    synchronize()
    return (time.perf_counter() - started) / repeats


def _measure(run: Callable[[], Any], device: str, repeats: int) -> dict[str, float | None]:
    """Seconds of one run, and MiB that it needed at its peak above what was in use before."""
    gc.collect()
    if device == "cuda":
        import torch

        torch.cuda.reset_peak_memory_stats()
        level = torch.cuda.memory_allocated()
        seconds = _seconds(run, device, repeats)
        return {"seconds": seconds, "peak": (torch.cuda.max_memory_allocated() - level) / 2**20}
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return {"seconds": _seconds(run, device, repeats), "peak": None}
    before = memory()
    seconds = _seconds(run, device, repeats)
    return {"seconds": seconds, "peak": memory(peak=True) - before}


def peak_of(run: Callable[[], Any], device: str = "cpu") -> float | None:
    """MiB of one run above the level before it."""
    return _measure(run, device, 1)["peak"]


def ratio(one: Result, other: Result) -> dict[str, float | None]:
    """Of medians, and the smallest and the largest ratio of a round."""
    mine, theirs = one.median(), other.median()
    if mine is None or theirs is None:
        return {"ratio": None, "ratio_low": None, "ratio_high": None}
    rounds = [a["seconds"] / b["seconds"] for a, b in zip(one.rounds, other.rounds, strict=False)]
    return {"ratio": mine / theirs, "ratio_low": min(rounds), "ratio_high": max(rounds)}


def shown_ratio(figures: Mapping[str, float | None]) -> str | None:
    """`1.23 (1.10–1.31)`."""
    if figures["ratio"] is None:
        return None
    return f"{figures['ratio']:.2f} ({figures['ratio_low']:.2f}–{figures['ratio_high']:.2f})"


def circumstances(arguments: argparse.Namespace, before: float) -> dict[str, Any]:
    """How it was measured; `before` is the load when the script began."""
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
    """For a table."""
    return None if seconds is None else 1000 * seconds


def entry(name: str, case: str, result: Result, **more: Any) -> dict[str, Any]:
    """All that was measured of one contestant in one case, for the JSON."""
    return {
        **more,
        "name": name,
        "case": case,
        "problem": result.problem,
        "median": result.median(),
        "least": result.smallest(),
        "peak": result.median("peak"),
        **result.facts,
        "seconds": [one["seconds"] for one in result.rounds],
    }
