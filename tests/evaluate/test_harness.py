"""Prompts, examples, metrics, groups and versions are those of lm-evaluation-harness's own files."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from edgerazor.errors import DataError
from edgerazor.evaluate.tasks.catalog import ETHICS, TASKS
from edgerazor.evaluate.tasks.convert import convert_rows
from edgerazor.evaluate.tasks.rows import read_rows
from tests.evaluate.hub_rows import HUB_ROWS
from tests.evaluate.task_rows import ROWS, save_rows

lm_eval = pytest.importorskip("lm_eval", reason="the extra eval is not installed: make tasks")
pytest.importorskip("langdetect", reason="the extra eval is not installed: make tasks")
import evaluate as metrics  # noqa: E402
import nltk  # noqa: E402

from edgerazor.evaluate.tasks.harness import RowsTask, build_groups, rows_of_subjects  # noqa: E402
from edgerazor.evaluate.tasks.run import Prompts, TaskRun  # noqa: E402
from tests.evaluate.harness import TaskOfTheHarness  # noqa: E402

pytestmark = pytest.mark.slow
VARIED = (
    "question",
    "question_stem",
    "goal",
    "context",
    "sentence",
    "ctx_a",
    "input",
    "scenario",
    "activity",
    "prompt",
)
EVERY = [pytest.param(name, marks=pytest.mark.subprocess) if task.runs_code else name for name, task in TASKS.items()]
FEW_SHOT = [name for name, task in TASKS.items() if task.shots is not None]


class EveryAnswerPasses:
    """Stands for the metric that the harness's module of HumanEval downloads when it is imported."""

    def compute(self, **_: Any) -> tuple[dict[str, float], None]:
        return {"pass@1": 1.0}, None


@pytest.fixture(autouse=True)
def offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """NLTK's table of sentence ends, empty, and no download."""
    (tmp_path / "nltk" / "tokenizers" / "punkt_tab").mkdir(parents=True)
    monkeypatch.setattr(nltk.data, "path", [str(tmp_path / "nltk")])
    monkeypatch.setattr(metrics, "load", lambda name: EveryAnswerPasses())
    yield


def varied(name: str, count: int) -> list[dict[str, Any]]:
    row = HUB_ROWS[name]
    column = next(column for column in VARIED if column in row)
    return [{**row, column: f"{number}. {row[column]}"} for number in range(count)]


def converted(name: str, rows: list[dict[str, Any]], folder: Path) -> list[dict[str, Any]]:
    source = folder / "hub.jsonl"
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return read_rows(convert_rows(source, name, folder)[0], TASKS[name])


def build(name: str, rows: list[dict[str, Any]], **settings: Any) -> RowsTask:
    return RowsTask(TASKS[name], rows, subject="abstract_algebra" if name == "mmlu" else None, **settings)


ANSWERS = {
    "gsm8k": "That is 3 + 2 = 5, so 5.\n#### 5",
    "ifeval": "two cats",
    "humaneval": "    return a + b\n",
    "humaneval_instruct": "    return a + b\n```\nIt adds.",
}


@pytest.mark.parametrize("name", EVERY)
def test_prompts_metrics_and_shots_are_those_of_the_harness(name: str, tmp_path: Path) -> None:
    count = 6 if name == "gsm8k" else 1
    rows = varied(name, count) if count > 1 else [HUB_ROWS[name]]
    ours_rows = converted(name, rows, tmp_path)
    shots = ours_rows if TASKS[name].shots and count > 1 else None
    task, theirs = build(name, ours_rows, shots=shots), TaskOfTheHarness(name, rows)
    results = []
    for each in (task, theirs):
        each.build_all_requests()
        for index, request in enumerate(each.instances):
            request.resps = [ANSWERS[name]] if name in ANSWERS else [(-1.0 - index, False)]
        each.apply_filters()
        of_first = [request for request in each.instances if request.doc_id == 0]
        results.append(
            {
                key: each.process_results(each.eval_docs[0], [request.filtered_resps[key] for request in of_first])
                for key in of_first[0].filtered_resps
            }
        )
    assert [request.args for request in task.instances] == [request.args for request in theirs.instances]
    assert results[0] == results[1] and results[0]
    assert task.higher_is_better() == theirs.higher_is_better() and task.VERSION == theirs.VERSION
    assert task.config.num_fewshot == theirs.config.num_fewshot
    assert set(task.aggregation()) == set(theirs.aggregation())


@pytest.mark.parametrize("name", FEW_SHOT)
def test_examples_are_those_that_the_harness_draws(name: str, tmp_path: Path) -> None:
    rows, shots = varied(name, 4), varied(name, 9)[4:]
    ours = build(name, converted(name, rows, tmp_path), shots=converted(name, shots, tmp_path), num_fewshot=2)
    theirs = TaskOfTheHarness(name, rows, shots)
    theirs.set_config("num_fewshot", 2)
    for each in (ours, theirs):
        each.build_all_requests()
    assert [request.args for request in ours.instances] == [request.args for request in theirs.instances]


@pytest.mark.parametrize("name", FEW_SHOT)
def test_examples_from_the_rows_leave_out_the_one_that_is_asked(name: str, tmp_path: Path) -> None:
    rows = converted(name, varied(name, 3), tmp_path)
    task = build(name, rows, num_fewshot=2)
    task.build_all_requests()
    for request in task.instances:
        contexts = task.fewshot_context(task.eval_docs[request.doc_id], 0)
        asked = contexts[request.idx] if isinstance(contexts, list) else contexts
        examples = request.args[0].removesuffix(asked)
        assert examples and asked not in examples
    with pytest.raises(DataError, match="3 examples are to stand before each question; without"):
        build(name, rows, num_fewshot=3)
    with pytest.raises(DataError, match="2 examples are to stand before each question, got 1"):
        build(name, rows, shots=rows[:1], num_fewshot=2)


def test_a_number_that_the_harness_fixes_to_none_stays() -> None:
    assert build("truthfulqa_mc2", ROWS["truthfulqa_mc2"], num_fewshot=3).config.num_fewshot == 0


def test_subjects_are_grouped_as_by_the_harness() -> None:
    parts = rows_of_subjects(ROWS["mmlu"], Path("mmlu.jsonl"))
    tasks = {f"mmlu_{name}": RowsTask(TASKS["mmlu"], rows, subject=name) for name, rows in parts.items()}
    groups = build_groups(tasks)
    assert {name: group.child_names for name, group in groups.items()} == {
        "mmlu": ["mmlu_stem", "mmlu_other"],
        "mmlu_stem": ["mmlu_abstract_algebra", "mmlu_astronomy"],
        "mmlu_other": ["mmlu_virology"],
    }
    assert all(
        group.aggregate_metric_list and group.aggregate_metric_list[0].weight_by_size for group in groups.values()
    )
    with pytest.raises(DataError, match="there is no subject 'algebra'; did you mean"):
        rows_of_subjects([{**ROWS["mmlu"][0], "subject": "algebra"}], Path("mmlu.jsonl"))
    ethics = {name: RowsTask(TASKS[name], ROWS[name]) for name in ETHICS}
    assert build_groups(ethics)["hendrycks_ethics"].child_names == list(ETHICS)
    assert not build_groups({name: ethics[name] for name in ETHICS[1:]})


def test_what_cannot_run_here_is_missing_from_a_group_and_an_error_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = save_rows(tmp_path / "rows")
    run = TaskRun(["edgerazor_instruct"], data)
    assert run.missing.keys() == {"humaneval_instruct"}
    assert "only with --confirm-run-unsafe-code" in run.missing["humaneval_instruct"]
    with pytest.raises(DataError, match="humaneval: its answers are programs"):
        TaskRun(["humaneval"], data)
    assert not TaskRun(["humaneval", "edgerazor_instruct"], data, run_code=True).missing
    monkeypatch.setattr(nltk.data, "path", [])
    assert "run python -m nltk.downloader punkt_tab" in TaskRun(["edgerazor_instruct"], data).missing["ifeval"]
    with pytest.raises(DataError, match="arc_easy: 4 examples are to stand before each question"):
        TaskRun(["arc_easy"], data, prompts=Prompts(num_fewshot=4))
