"""What came of tasks: values with standard errors, and two models compared on the same items."""

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from edgerazor.evaluate.tasks.compare import Comparison, compare_answers


@dataclass(frozen=True)
class Score:
    """One metric of a model on a task, with its standard error (None of a single item, or where there is none)."""

    value: float
    error: float | None


@dataclass(frozen=True)
class TaskRow:
    """A metric of a task or of a group of tasks, of both models where there are two.

    Attributes:
        metric: its name, and behind a comma the filter that it was taken through, if any.
        shots: examples in the prompt.
        comparison: None without a teacher, and where an item is more than right or wrong.
    """

    task: str
    metric: str
    items: int
    student: Score
    shots: int = 0
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


def read_results(ours: Mapping[str, Any], theirs: Mapping[str, Any] | None, missing: Mapping[str, str]) -> TasksResult:
    """The rows of a table, from results with samples, which are left out of what is kept."""
    rows = tuple(
        _row(task, metric, filtered, ours, theirs)
        for task in _shown(ours)
        for metric, filtered in metrics_of(ours, task)
    )
    return TasksResult(rows, dict(missing), _without_items(ours), theirs and _without_items(theirs))


def _shown(results: Mapping[str, Any]) -> Iterator[str]:
    """Tasks in the order in which they ran; MMLU's groups in the place of its subjects, ETHICS behind its parts."""
    below: Mapping[str, list[str]] = results.get("group_subtasks", {})
    waiting = dict.fromkeys(below)
    for task in results["samples"]:
        if task.startswith("mmlu_"):
            mine = [group for group in waiting if group.startswith("mmlu")]
        else:
            yield task
            mine = [group for group in waiting if below[group][-1] == task]
        for group in mine:
            del waiting[group]
            yield group


def metrics_of(results: Mapping[str, Any], task: str) -> list[tuple[str, str]]:
    """Metrics of a task or a group, each with the filter that its answers went through."""
    named = (key.partition(",") for key in results["results"][task] if "," in key)
    return [(metric, filtered) for metric, _, filtered in named if not metric.endswith("_stderr")]


def metric_name(metric: str, filtered: str) -> str:
    """How tables call a metric: with its filter behind a comma, if that is one of several."""
    return metric if filtered in {"none", "create_test"} else f"{metric},{filtered}"


def score_of(results: Mapping[str, Any], task: str, metric: str, filtered: str) -> Score:
    """Value and standard error of one metric."""
    found = results["results"][task]
    error = found.get(f"{metric}_stderr,{filtered}")
    known = isinstance(error, float) and not math.isnan(error)
    return Score(float(found[f"{metric},{filtered}"]), error if known else None)


def _items(results: Mapping[str, Any], task: str, filtered: str) -> list[Mapping[str, Any]]:
    if task in results["samples"]:
        found = [item for item in results["samples"][task] if item["filter"] == filtered]
        return sorted(found, key=lambda item: int(item["doc_id"]))
    return [item for part in results["group_subtasks"][task] for item in _items(results, part, filtered)]


def _row(task: str, metric: str, filtered: str, ours: Mapping[str, Any], theirs: Mapping[str, Any] | None) -> TaskRow:
    items = _items(ours, task, filtered)
    named = metric_name(metric, filtered)
    row = TaskRow(task, named, len(items), score_of(ours, task, metric, filtered), ours["n-shot"].get(task, 0))
    if theirs is None:
        return row
    values = [[item[metric] for item in found] for found in (items, _items(theirs, task, filtered))]
    plain = all(not isinstance(value, list) and value in {0, 1} for of_model in values for value in of_model)
    compared = compare_answers(*([value == 1 for value in of_model] for of_model in values)) if plain else None
    score = score_of(theirs, task, metric, filtered)
    return TaskRow(task, named, row.items, row.student, row.shots, score, compared)


def merge(found: dict[str, Any], more: Mapping[str, Any]) -> None:
    """Put further results, in the same format, to those that were found."""
    for key, value in more.items():
        found[key] = {**found.get(key, {}), **value} if isinstance(value, dict) else value


def _without_items(results: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in results.items() if key != "samples"}
