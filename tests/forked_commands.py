"""The command line in processes that are forked from one that has imported it: real processes, without the seconds.

A fork of the test process itself could wait for threads that it does not have; the server of `multiprocessing` has
none.
"""

import multiprocessing
import os
from multiprocessing.context import ForkServerProcess
from pathlib import Path

IMPORTED = ["edgerazor.cli", "edgerazor.training", "edgerazor.checkpoint", "edgerazor.export", "transformers.trainer"]


def start(command: list[object], log: Path) -> ForkServerProcess:
    """`edgerazor` with these words in a process of its own, which writes all it says into `log`."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(IMPORTED)
    process = context.Process(target=_run, args=([str(word) for word in command], log))
    process.start()
    return process


def end(process: ForkServerProcess) -> int:
    """Its exit status, negative for a signal; TimeoutError after five minutes."""
    process.join(timeout=300)
    if process.exitcode is None:
        process.kill()
        raise TimeoutError("the command did not end")
    return process.exitcode


def _run(words: list[str], log: Path) -> None:
    with log.open("wb") as output:
        for descriptor in (1, 2):
            os.dup2(output.fileno(), descriptor)
    from edgerazor.cli import main

    main(words)
