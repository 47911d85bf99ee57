"""Results of tasks, in lm-evaluation-harness's format as `evaluate --tasks --output` writes it, put side by side."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgerazor.core.json_files import read_json
from edgerazor.core.run_folder import METRICS
from edgerazor.errors import DataError
from edgerazor.evaluate.tasks.results import metric_name, metrics_of, score_of
from edgerazor.report.records import RunRecord
from edgerazor.schemas.base import nearest

Question = tuple[str, str]  # task and metric


@dataclass(frozen=True)
class TaskScore:
    """A metric of a model: the share of right answers with its standard error, of so many items.

    Attributes:
        verdict: of the comparison with the teacher, with its p; empty without one.
    """

    value: float
    error: float | None
    items: int | None
    verdict: str = ""


@dataclass
class TaskTable:
    """Scores by column and question; columns are runs, their teachers, and files that belong to no run."""

    columns: dict[str, dict[Question, TaskScore]] = field(default_factory=dict)

    @property
    def questions(self) -> list[Question]:
        """Every task and metric, in the order in which they came."""
        return list(dict.fromkeys(question for scores in self.columns.values() for question in scores))

    def items_of(self, question: Question) -> str:
        """How many items the columns answered."""
        counts = {scores[question].items for scores in self.columns.values() if question in scores} - {None}
        return ", ".join(map(str, sorted(count for count in counts if count is not None))) or "–"

    @staticmethod
    def shown(scores: Mapping[Question, TaskScore], question: Question) -> str:
        """Percent with standard error, or a dash."""
        score = scores.get(question)
        if score is None:
            return "–"
        return f"{100 * score.value:.2f}" + ("" if score.error is None else f" ± {100 * score.error:.2f}")

    def notes(self) -> list[str]:
        """What keeps two columns from being compared."""
        found = []
        for task in dict.fromkeys(task for task, _ in self.questions):
            counts = {
                score.items for scores in self.columns.values() for (of, _), score in scores.items() if of == task
            }
            if len(counts - {None}) > 1:
                shown = ", ".join(map(str, sorted(count for count in counts if count is not None)))
                found.append(f"{task}: the columns are of different numbers of items ({shown}); they do not compare")
        return found


def task_table(records: Sequence[RunRecord], given: Sequence[str]) -> TaskTable:
    """The results that are given, and those that lie in the folders of runs for which none is.

    Args:
        given: `FILE`, or `NAME=FILE` where the file does not say by its model's path or its own place whose it is.

    Raises:
        CheckpointError: a file is no JSON.
        DataError: it holds no results, or two files of a run answer the same task.
    """
    table, owners = TaskTable(), dict[tuple[str, str], Path]()
    for argument in given:
        name, path = _named(argument, records)
        content = read_json(path)
        if not is_results(content):
            raise DataError(
                f"{path}: holds no results of tasks; expected what `edgerazor evaluate --tasks --output` writes"
            )
        _add(table, name or _owner(content, path, records) or path.stem, path, content, owners)
    for record in records:
        if record.is_training and record.name not in table.columns:
            for path, content in results_in(record.path):
                _add(table, record.name, path, content, owners)
    order = [*(record.name for record in records if record.name in table.columns)]
    table.columns = {name: table.columns[name] for name in [*order, *(table.columns.keys() - set(order))]}
    return table


def results_in(folder: Path) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Files of results in the folder of a run."""
    for path in sorted(folder.glob("*.json")):
        if path.name != METRICS and is_results(content := read_json(path)):
            yield path, content


def is_results(content: Mapping[str, Any]) -> bool:
    """Whether this is the format of lm-evaluation-harness."""
    results = content.get("results")
    return isinstance(results, dict) and all(isinstance(scores, dict) for scores in results.values())


def _named(argument: str, records: Sequence[RunRecord]) -> tuple[str | None, Path]:
    name, sign, place = argument.partition("=")
    if not sign or Path(argument).exists():
        return None, Path(argument)
    names = [record.name for record in records]
    if name not in names:
        raise DataError(f"--tasks {argument}: no run is named '{name}'{nearest(name, names)}")
    return name, Path(place)


def _owner(content: Mapping[str, Any], path: Path, records: Sequence[RunRecord]) -> str | None:
    """The run whose model the results are of, by the path in them, or in whose folder they lie."""
    config = content.get("config")
    said = str(config.get("model_args", "")) if isinstance(config, dict) else ""
    measured = Path(said.partition("=")[2].split(",")[0]).resolve() if "=" in said else None
    for record in records:
        if measured is not None and measured in {
            place.resolve() for place in (record.path, record.model or record.path)
        }:
            return record.name
    inside = [record.name for record in records if record.path.resolve() in path.resolve().parents]
    return inside[0] if inside else None


def _add(
    table: TaskTable, name: str, path: Path, content: Mapping[str, Any], owners: dict[tuple[str, str], Path]
) -> None:
    for task in content["results"]:
        if (other := owners.setdefault((name, task), path)) != path:
            raise DataError(
                f"{path}: answers {task} for '{name}', as {other} does; give one of them by --tasks {name}=FILE"
            )
    table.columns.setdefault(name, {}).update(_scores(content))
    teacher = content.get("teacher")
    if isinstance(teacher, dict) and is_results(teacher):
        column = f"teacher of {name}"
        table.columns.setdefault(column, {}).update(_scores(teacher))


def _scores(content: Mapping[str, Any]) -> dict[Question, TaskScore]:
    found, compared = {}, content.get("comparison") or {}
    for task in content["results"]:
        items = _items(content, task)
        for metric, filtered in metrics_of(content, task):
            if isinstance(content["results"][task][f"{metric},{filtered}"], int | float):
                named, score = metric_name(metric, filtered), score_of(content, task, metric, filtered)
                found[task, named] = TaskScore(
                    score.value, score.error, items, _verdict(compared.get(f"{task},{named}"))
                )
    return found


def _items(content: Mapping[str, Any], task: str) -> int | None:
    """How many items a task has, or all tasks of a group; None where the file does not say."""
    parts = (content.get("group_subtasks") or {}).get(task)
    counts = [_items(content, part) for part in parts] if parts else []
    if counts:
        return None if None in counts else sum(count for count in counts if count is not None)
    return ((content.get("n-samples") or {}).get(task) or {}).get("effective")


def _verdict(comparison: Any) -> str:
    if not isinstance(comparison, dict) or not isinstance(comparison.get("p"), int | float):
        return ""
    return f"{comparison.get('verdict', '')}, p {comparison['p']:.3f}"
