"""How an export looks on a terminal: a bar for each of its stages while it runs, then what it wrote."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bars

from edgerazor.core.contracts import ExportResult, Progress


@contextmanager
def show_stages() -> Iterator[Progress | None]:
    """Give a function that draws a bar for each stage that it is called with; None if stderr is no terminal."""
    if not sys.stderr.isatty():
        yield None
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    bars = Bars(*columns, console=Console(stderr=True), transient=True)
    stages: dict[str, TaskID] = {}

    def show(stage: str, done: int, total: int) -> None:
        bars.start()  # not before: training, which exports at its end, has a bar of its own
        if stage not in stages:
            stages[stage] = bars.add_task(stage)
        bars.update(stages[stage], completed=done, total=total)

    try:
        yield show
    finally:
        bars.stop()


def print_export(result: ExportResult, console: Console) -> None:
    """Size and bits of what was written, a line for each way of storing tensors, and the exporter's remarks."""

    def say(text: str) -> None:
        console.print(text, highlight=False, markup=False, soft_wrap=True)

    size = f"{result.bytes / 1e6:.1f} MB, {result.bits_per_weight:.3f} bits per weight"
    compression = result.details.get("compression")
    ratio = f", {compression:.2f} times smaller than 16 bit" if compression else ""
    engine = result.details.get("engine")
    say(f"exported {result.path}: {size}{ratio}, verified{f' and run in {engine}' if engine else ''}")
    for name, row in result.details.get("types", {}).items():
        figures = f"{row['tensors']} tensors, {row['bytes'] / 1e6:.1f} MB, {row['bits_per_weight']:.4g} bits per weight"
        say(f"  {name}: {figures}{'; ' if row.get('backends') else ''}{row.get('backends', '')}")
    for note in result.details.get("notes", ()):
        say(f"  note: {note}")
