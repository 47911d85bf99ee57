"""Only a test marked `subprocess` starts another Python: that one imports torch again, which takes seconds."""

import multiprocessing.process
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import Any

# A shell may start anything; of the other programs none is a Python.
PYTHONS = ("python", "edgerazor", "accelerate", "torchrun", "bash", "sh")

_refused = False


@contextmanager
def other_pythons(*, allowed: bool) -> Iterator[None]:
    """Inside, whoever starts another Python gets a RuntimeError, unless it is allowed."""
    global _refused  # noqa: PLW0603
    _refused = not allowed
    try:
        yield
    finally:
        _refused = False


def watch_processes() -> None:
    """Make `subprocess` and `multiprocessing` ask from now on; for a whole test session, called once."""
    open_process, start_process = subprocess.Popen.__init__, multiprocessing.process.BaseProcess.start

    @wraps(open_process)
    def checked_open(self: Any, args: Any, *rest: Any, **options: Any) -> None:
        program = args.split()[0] if isinstance(args, str) else args if isinstance(args, Path) else args[0]
        if options.get("shell") or Path(str(program)).name.startswith(PYTHONS):
            _check(program)
        open_process(self, args, *rest, **options)

    @wraps(start_process)
    def checked_start(self: Any) -> None:
        _check("multiprocessing")
        start_process(self)

    subprocess.Popen.__init__ = checked_open  # type: ignore[method-assign]
    multiprocessing.process.BaseProcess.start = checked_start  # type: ignore[method-assign]


def _check(program: object) -> None:
    if _refused:
        raise RuntimeError(f"this test starts another Python ({program}); mark it with @pytest.mark.subprocess")
