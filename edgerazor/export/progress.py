"""A bar for the stages of an export, where there is somebody to look at it."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn


@contextmanager
def show_stages(worker: Any) -> Iterator[None]:
    """Draw what `worker.progress(stage, done, total)` is called with, if stderr is a terminal.

    A worker without the attribute `progress` is left alone.
    """
    if not sys.stderr.isatty() or not hasattr(worker, "progress"):
        yield
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bars:
        stages: dict[str, Any] = {}

        def show(stage: str, done: int, total: int) -> None:
            if stage not in stages:
                stages[stage] = bars.add_task(stage, total=total)
            bars.update(stages[stage], completed=done)

        worker.progress = show
        try:
            yield
        finally:
            worker.progress = None
