"""HumanEval's answers are programs: each is run in a process of its own, with limits.

The limits keep a program that errs from taking the machine along. They are no wall against one that means harm: it has
the rights of whoever runs it, its files and its network.
"""

import os
import secrets
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

SECONDS = 3.0  # as in the metric code_eval, which lm-evaluation-harness takes
BYTES = 4 * 2**30
_FILE_BYTES = 2**20
_RUNNER = f"""
import runpy, sys
try:
    import resource
except ImportError:
    pass
else:
    limits = dict(RLIMIT_AS={BYTES}, RLIMIT_CPU={int(SECONDS) + 1}, RLIMIT_FSIZE={_FILE_BYTES}, RLIMIT_CORE=0)
    for name, limit in limits.items():
        number = getattr(resource, name)
        hard = resource.getrlimit(number)[1]
        limit = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
        resource.setrlimit(number, (limit, limit))
path, word = sys.argv[1:]
sys.argv = [path]
runpy.run_path(path, run_name="answer")
with open(path + ".passed", "w") as file:
    file.write(word)
"""


def passes(program: str, seconds: float = SECONDS) -> bool:
    """Whether a program runs to its end without an exception, in an empty folder, without input and environment."""
    word = secrets.token_hex()  # a program that leaves early has not reached its end
    with tempfile.TemporaryDirectory() as folder:
        path, passed = Path(folder) / "answer.py", Path(folder) / "answer.py.passed"
        path.write_text(program, encoding="utf-8", errors="replace")
        process = subprocess.Popen(
            [sys.executable, "-I", "-c", _RUNNER, str(path), word],
            cwd=folder,
            env={},
            start_new_session=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            return False
        finally:
            _end(process)
        return passed.is_file() and passed.read_text(errors="replace") == word


def _end(process: "subprocess.Popen[bytes]") -> None:
    """End a process and those of its session that it started."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except (AttributeError, ProcessLookupError, PermissionError):
        process.kill()
    process.wait()


def pass_at_k(references: Sequence[str], predictions: Sequence[Sequence[str]], k: Sequence[int]) -> dict[str, float]:
    """Share of the first answers that pass their test, under the key that code_eval gives it; `k` is [1]."""
    assert list(k) == [1]
    right = [passes(f"{answers[0]}\n{test}") for test, answers in zip(references, predictions, strict=True)]
    return {"pass@1": sum(right) / len(right)}


def build_predictions(answers: list[list[str]], rows: list[dict[str, Any]]) -> list[list[str]]:
    """Programs: the prompt, and what goes on from it."""
    return [[row["prompt"] + text for text in texts] for texts, row in zip(answers, rows, strict=True)]


def build_predictions_instruct(answers: list[list[str]], rows: list[dict[str, Any]]) -> list[list[str]]:
    """The same, up to where the block of code ends."""
    return build_predictions([[text.partition("```")[0] for text in texts] for texts in answers], rows)
