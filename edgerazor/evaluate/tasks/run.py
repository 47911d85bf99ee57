"""Run tasks on a model, on its teacher beside it, and compare the two item by item."""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from datasets import Dataset

from edgerazor.core.contracts import Runtime
from edgerazor.core.registry import Registry
from edgerazor.errors import DataError, PluginError, install_hint
from edgerazor.evaluate.tasks.catalog import TaskDefinition, choose_tasks
from edgerazor.evaluate.tasks.compare import Comparison, compare_answers
from edgerazor.evaluate.tasks.language_model import RuntimeLM
from edgerazor.evaluate.tasks.request_cache import RequestCache, identify_model
from edgerazor.evaluate.tasks.rows import find_file, missing_file, read_rows
from edgerazor.inference.open_runtime import open_runtime
from edgerazor.schemas.preset import local_config

try:
    from lm_eval.api.task import ConfigurableTask
    from lm_eval.evaluator import evaluate
except ModuleNotFoundError as error:
    if error.name != "lm_eval":
        raise
    raise PluginError(f"lm-evaluation-harness is not installed: {install_hint('eval')}") from error

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Score:
    """One metric of a model on a task, with its standard error (None of a single item)."""

    value: float
    error: float | None


@dataclass(frozen=True)
class TaskRow:
    """A metric of a task, of both models where there are two."""

    task: str
    metric: str
    items: int
    student: Score
    teacher: Score | None = None
    comparison: Comparison | None = None


@dataclass(frozen=True)
class TasksResult:
    """What came of a run.

    Attributes:
        rows: a metric of a task each.
        missing: tasks of a group that were not run, and why.
        results: in lm-evaluation-harness's own format, of the model.
        teacher_results: likewise of the teacher; None without one.
    """

    rows: tuple[TaskRow, ...]
    missing: Mapping[str, str]
    results: Mapping[str, Any]
    teacher_results: Mapping[str, Any] | None = None

    def to_json(self) -> str:
        """The model's results, with the teacher's, the comparison and what is missing under keys of our own."""
        compared = {
            f"{row.task},{row.metric}": {**vars(row.comparison), "verdict": row.comparison.verdict}
            for row in self.rows
            if row.comparison is not None
        }
        added = {"teacher": self.teacher_results, "comparison": compared, "missing": dict(self.missing)}
        return json.dumps({**self.results, **added}, indent=2, default=str) + "\n"


class RowsTask(ConfigurableTask):
    """A task of lm-evaluation-harness whose rows were read already.

    Args:
        definition: prompts and metrics.
        rows: as `read_rows` gives them.
    """

    def __init__(self, definition: TaskDefinition, rows: Sequence[Mapping[str, Any]]):
        self._rows = Dataset.from_list([dict(row) for row in rows])
        super().__init__(config=definition.config())

    def download(self, *_: Any, **__: Any) -> None:
        """Take the rows; nothing is downloaded."""
        self.dataset = {"test": self._rows}


@dataclass
class TaskRun:
    """Which tasks, on which rows.

    Args:
        tasks: names of tasks and groups.
        data: folder with NAME.jsonl or NAME.jsonl.gz of each.
        limit: at most this many rows of each; None is all.
        cache: file of answers; None keeps none.

    Raises:
        DataError: no such task, folder or file, or a row is malformed.
    """

    tasks: Sequence[str]
    data: Path
    limit: int | None = None
    cache: Path | None = None
    missing: dict[str, str] = field(init=False)
    rows: dict[str, list[dict[str, Any]]] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        self._definitions, self.missing, alone = choose_tasks(self.tasks)
        for definition in self._definitions:
            path = find_file(self.data, definition.name)
            if path is not None:
                self.rows[definition.name] = read_rows(path, definition, self.limit)
            elif definition.name in alone:
                raise DataError(missing_file(self.data, definition.name))
            else:
                self.missing[definition.name] = missing_file(self.data, definition.name)
        if not self.rows:
            raise DataError(f"{self.data}: holds the rows of none of these tasks: {', '.join(self.missing)}")

    def measure(self, path: Path, registry: Registry, progress: Progress | None = None) -> dict[str, Any]:
        """Results of one model in lm-evaluation-harness's format, with every item under `samples`."""
        runtime = open_runtime(path, registry=registry, unquantized=True)
        try:
            return self._measure(runtime, path, progress)
        finally:
            runtime.close()

    def _measure(self, runtime: Runtime, path: Path, progress: Progress | None) -> dict[str, Any]:
        fetched = None if path.exists() else local_config(str(path))
        cache = RequestCache(self.cache, identify_model(fetched.parent if fetched else path, runtime.engine))
        shown = None if progress is None else lambda done, total: progress(str(path), done, total)
        try:
            tasks = {
                definition.name: RowsTask(definition, self.rows[definition.name])
                for definition in self._definitions
                if definition.name in self.rows
            }
            found = dict(evaluate(RuntimeLM(runtime, cache, shown), tasks, bootstrap_iters=1000))
        finally:
            cache.close()
        config = {"model": "edgerazor", "model_args": f"path={path}", "engine": runtime.engine, "limit": self.limit}
        return {**found, "config": config}


def evaluate_tasks(
    path: Path, run: TaskRun, *, registry: Registry, teacher: Path | None = None, progress: Progress | None = None
) -> TasksResult:
    """Measure a model, and a teacher beside it.

    Args:
        path: packed checkpoint, exported model, or 16-bit model by its folder or hub name.
        run: which tasks on which rows.
        registry: loaded plugins.
        teacher: any of the same.
        progress: is called with a model's name, how many requests are done, and how many there are.

    Raises:
        CheckpointError, ExportError: a model cannot be loaded or run.
        OutputError: answers cannot be kept.
    """
    ours = run.measure(path, registry, progress)
    theirs = None if teacher is None else run.measure(teacher, registry, progress)
    rows = [_row(task, metric, ours, theirs) for task in run.rows for metric in _metrics(ours, task)]
    return TasksResult(tuple(rows), dict(run.missing), _without_items(ours), theirs and _without_items(theirs))


def _metrics(results: Mapping[str, Any], task: str) -> list[str]:
    return list(results["higher_is_better"][task])


def _row(task: str, metric: str, ours: Mapping[str, Any], theirs: Mapping[str, Any] | None) -> TaskRow:
    items = ours["samples"][task]
    row = TaskRow(task, metric, len(items), _score(ours, task, metric))
    if theirs is None:
        return row
    student, teacher = ([item[metric] == 1 for item in of["samples"][task]] for of in (ours, theirs))
    compared = compare_answers(student, teacher)
    return TaskRow(task, metric, len(items), row.student, _score(theirs, task, metric), compared)


def _score(results: Mapping[str, Any], task: str, metric: str) -> Score:
    found = results["results"][task]
    error = found.get(f"{metric}_stderr,none")
    known = isinstance(error, float) and not math.isnan(error)
    return Score(float(found[f"{metric},none"]), error if known else None)


def _without_items(results: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in results.items() if key != "samples"}
