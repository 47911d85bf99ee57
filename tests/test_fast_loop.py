"""The fast loop is fast: nothing in it starts another Python, and the Makefile leaves out what is marked."""

import multiprocessing
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MARKED = "(slow or subprocess or llamacpp or genai or browser)"


@pytest.mark.parametrize("command", [[sys.executable, "-c", ""], [Path("edgerazor"), "plugins"], ["bash", "-c", ":"]])
def test_another_python_is_refused_without_the_mark(command: list[str]) -> None:
    with pytest.raises(RuntimeError, match=r"starts another Python .*; mark it with @pytest\.mark\.subprocess"):
        subprocess.run(command, check=False)


def test_a_shell_is_refused_without_the_mark() -> None:
    with pytest.raises(RuntimeError, match="starts another Python"):
        subprocess.run("true", shell=True, check=False)


@pytest.mark.parametrize("method", multiprocessing.get_all_start_methods())
def test_multiprocessing_is_refused_without_the_mark(method: str) -> None:
    process = multiprocessing.get_context(method).Process(target=print)  # type: ignore[attr-defined]
    with pytest.raises(RuntimeError, match="starts another Python"):
        process.start()


@pytest.mark.subprocess
def test_another_python_may_start_under_the_mark() -> None:
    done = subprocess.run([sys.executable, "-S", "-c", "print(1)"], capture_output=True, text=True, check=True)
    assert done.stdout == "1\n"


def test_the_makefile_leaves_out_what_is_marked() -> None:
    done = subprocess.run(["make", "--dry-run", "test-fast"], cwd=ROOT, capture_output=True, text=True, check=True)
    assert f"not {MARKED}" in done.stdout
