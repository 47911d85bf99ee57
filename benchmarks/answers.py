"""What a contestant's process does: open a case (inputs, gate, warm-up), time it when told to, measure its memory."""

import argparse
import ctypes
import gc
import json
import os
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from contest import memory

SHORTEST = 0.03  # seconds; something shorter is repeated until a measurement takes this long


class GateError(Exception):
    """A result is not what it should be."""


@dataclass(frozen=True)
class Case:
    """What a worker measures. A contestant that has no such job raises NotImplementedError instead.

    Attributes:
        run: does the job once.
        facts: of the gate and of the warm-up; written beside the times.
        short: repeated and averaged where it takes less than `SHORTEST`.
    """

    run: Callable[[], Any]
    facts: Mapping[str, Any] = field(default_factory=dict)
    short: bool = False


class Answers:
    """A contestant: opens a case, measures it, closes it."""

    def __init__(self, open_case: Callable[[str], Case], setup: Mapping[str, Any]):
        import torch

        torch.set_num_threads(setup["threads"])
        self.open_case, self.device = open_case, setup["device"]
        self.case: Case | None = None
        self.repeats = 1

    def ask(self, verb: str, case: str) -> dict[str, Any]:
        """Answer `open`, `time`, `memory` or `close`: facts, figures, or a problem."""
        try:
            return {"open": self._open, "time": self._time, "memory": self._memory, "close": self._close}[verb](case)
        except GateError as error:
            return {"problem": f"gate failed: {error}"}
        except NotImplementedError as error:
            return {"problem": str(error)}
        except Exception as error:
            return {"problem": f"{type(error).__name__}: {error}".splitlines()[0]}

    def _open(self, name: str) -> dict[str, Any]:
        case = self.open_case(name)
        first, warm = (_seconds(case.run, self.device, 1) for _ in range(2))
        self.case = case
        self.repeats = max(1, min(1000, round(SHORTEST / max(warm, 1e-7)))) if case.short else 1
        return {"facts": {**case.facts, "first_seconds": first}}

    def _time(self, _: str) -> dict[str, Any]:
        assert self.case is not None
        return {"seconds": _seconds(self.case.run, self.device, self.repeats)}

    def _memory(self, _: str) -> dict[str, Any]:
        assert self.case is not None
        return _memory(self.case.run, self.device)

    def _close(self, _: str) -> dict[str, Any]:
        self.case = None
        gc.collect()
        return {}

    def stop(self) -> None:
        """Drop the open case, so that its inputs are freed."""
        self.case = None


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


def _memory(run: Callable[[], Any], device: str) -> dict[str, float]:
    """`peak`: MiB that one run needs above what was in use before; `highest`: of the whole process. Empty where the
    system does not tell.

    A run of its own: what the allocator holds back is returned first, which would slow down a timed run.
    """
    gc.collect()
    if device == "cuda":
        import torch

        torch.cuda.reset_peak_memory_stats()
        level = torch.cuda.memory_allocated()
        run()
        torch.cuda.synchronize()
        highest = torch.cuda.max_memory_allocated()
        return {"peak": (highest - level) / 2**20, "highest": highest / 2**20}
    try:
        ctypes.CDLL("libc.so.6").malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5")
    except (OSError, AttributeError):
        return {}
    level = memory()
    run()
    highest = memory(peak=True)
    return {"peak": highest - level, "highest": highest}
