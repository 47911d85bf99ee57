"""Tasks of several kinds on a model, and on its teacher beside it."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from edgerazor.core.registry import Registry
from edgerazor.evaluate.tasks.results import TasksResult, merge, read_results

Progress = Callable[[str, int, int], None]


class Run(Protocol):
    """Tasks of one kind, whose rows are read.

    Attributes:
        missing: tasks that cannot be run, and why.
    """

    missing: dict[str, str]

    def measure(self, path: Path, registry: Registry, progress: Progress | None = None) -> dict[str, Any]:
        """Results of a model in lm-evaluation-harness's format, with every item under `samples`."""


def evaluate_tasks(
    path: Path,
    runs: Run | Sequence[Run],
    *,
    registry: Registry,
    teacher: Path | None = None,
    progress: Progress | None = None,
) -> TasksResult:
    """Measure a model, and a teacher beside it.

    Args:
        path: packed checkpoint, exported model, or 16-bit model by its folder or hub name.
        runs: which tasks on which rows.
        registry: loaded plugins.
        teacher: any of the same.
        progress: is called with a model's name, how many requests are done, and how many there are.

    Raises:
        CheckpointError, ExportError: a model cannot be loaded or run.
        DataError: a row cannot be asked.
        OutputError: answers cannot be kept.
    """
    every = runs if isinstance(runs, Sequence) else [runs]

    def measured(model: Path) -> Mapping[str, Any]:
        found: dict[str, Any] = {}
        for run in every:
            merge(found, run.measure(model, registry, progress))
        return found

    missing = {name: reason for run in every for name, reason in run.missing.items()}
    return read_results(measured(path), None if teacher is None else measured(teacher), missing)
