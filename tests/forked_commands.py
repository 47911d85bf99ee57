"""Commands and programs in processes that are forked from one that has imported the library: without the seconds.

A fork of the test process itself could wait for threads that it does not have; the server of `multiprocessing` has
none.
"""

import multiprocessing
import os
import runpy
import sys
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from multiprocessing.context import ForkServerProcess
from pathlib import Path

from tests.limits import quota

IMPORTED = ["edgerazor.cli", "edgerazor.training", "edgerazor.checkpoint", "edgerazor.export", "transformers.trainer"]


def start(
    command: Sequence[object], log: Path, *, environment: dict[str, str] | None = None, **limits: int
) -> ForkServerProcess:
    """`edgerazor` with these words in a process of its own, which writes all it says into `log`.

    Args:
        environment: variables that it has besides those of the server.
        limits: `umask`: of the files that it makes; `largest`: the size that a file of it cannot grow beyond.
    """
    return _start(_run_command, [str(word) for word in command], log, environment or {}, limits)


def run_program(path: Path, *words: object, folder: Path) -> str:
    """What a program says that runs in this folder as if Python were started with it.

    Raises:
        AssertionError: it did not end well.
    """
    log = folder / "output.log"
    status = end(_start(_run_program, path, [str(word) for word in words], folder, log))
    output = log.read_text(encoding="utf-8")
    assert status == 0, output
    return output


def end(process: ForkServerProcess) -> int:
    """Its exit status, negative for a signal; TimeoutError after five minutes."""
    process.join(timeout=300)
    if process.exitcode is None:
        process.kill()
        raise TimeoutError("the command did not end")
    return process.exitcode


def _start(target: Callable[..., None], *arguments: object) -> ForkServerProcess:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(IMPORTED)
    process = context.Process(target=target, args=arguments)
    process.start()
    return process


def _run_command(words: list[str], log: Path, environment: dict[str, str], limits: dict[str, int]) -> None:
    _write_into(log)
    os.environ.update(environment)
    if "umask" in limits:
        os.umask(limits["umask"])
    from edgerazor.cli import main

    with quota(limits["largest"]) if "largest" in limits else nullcontext():
        main(words)


def _run_program(path: Path, words: list[str], folder: Path, log: Path) -> None:
    _write_into(log)
    os.chdir(folder)
    sys.argv = [str(path), *words]
    sys.path.insert(0, str(folder))
    runpy.run_path(str(path), run_name="__main__")


def _write_into(log: Path) -> None:
    with log.open("wb") as output:
        for descriptor in (1, 2):
            os.dup2(output.fileno(), descriptor)
