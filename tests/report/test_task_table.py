"""Results of tasks: whose they are, what stands beside, and what does not compare."""

import json
from pathlib import Path
from typing import Any

import pytest

from edgerazor.errors import DataError
from edgerazor.report.records import RUN, RunRecord
from edgerazor.report.tasks import task_table


def results(path: str, *, items: int = 40, value: float = 0.5, **more: Any) -> dict[str, Any]:
    """As `evaluate --tasks --output` writes them."""
    scores = {
        "alias": "piqa",
        "acc,none": value,
        "acc_stderr,none": 0.05,
        "acc_norm,none": 0.25,
        "acc_norm_stderr,none": "N/A",
    }
    return {
        "results": {"piqa": scores},
        "n-samples": {"piqa": {"original": 500, "effective": items}},
        "config": {"model_args": f"path={path}"},
        **more,
    }


def write(path: Path, content: dict[str, Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def run(path: Path) -> RunRecord:
    path.mkdir(exist_ok=True)
    return RunRecord(path.name, path, RUN, path / "packed", {})


def test_results_belong_to_the_model_they_name_the_folder_they_lie_in_or_the_run_that_is_said(tmp_path: Path) -> None:
    first, second, third = (run(tmp_path / name) for name in ("first", "second", "third"))
    named = write(tmp_path / "x.json", results(str(first.model)))
    write(second.path / "tasks.json", results("elsewhere"))
    write(second.path / "other.json", {"not": "results"})
    loose = write(tmp_path / "loose.json", results("elsewhere"))
    said = write(tmp_path / "y.json", results("elsewhere"))
    table = task_table([first, second, third], [str(named), str(loose), f"third={said}"])
    assert list(table.columns) == ["first", "second", "third", "loose"]
    assert table.questions == [("piqa", "acc"), ("piqa", "acc_norm")]
    assert table.shown(table.columns["first"], ("piqa", "acc")) == "50.00 ± 5.00"
    assert table.shown(table.columns["first"], ("piqa", "acc_norm")) == "25.00"
    assert table.shown({}, ("piqa", "acc")) == "–"
    assert (table.items_of(("piqa", "acc")), table.notes()) == ("40", [])


def test_a_teacher_has_a_column_and_the_comparison_stands_with_the_student(tmp_path: Path) -> None:
    record = run(tmp_path / "run")
    compared = {"piqa,acc": {"student_only": 1, "teacher_only": 4, "p": 0.375, "verdict": "may be chance"}}
    write(record.path / "t.json", results("x", teacher=results("teacher", value=0.6), comparison=compared))
    table = task_table([record], [])
    assert list(table.columns) == ["run", "teacher of run"]
    assert table.columns["run"]["piqa", "acc"].verdict == "may be chance, p 0.375"
    assert table.columns["teacher of run"]["piqa", "acc"].value == 0.6


def test_filters_and_groups_have_rows_as_in_the_table_of_the_command(tmp_path: Path) -> None:
    record = run(tmp_path / "run")
    scores = {
        "gsm8k": {"exact_match,strict-match": 0.25, "exact_match_stderr,strict-match": 0.1}
        | {"exact_match,flexible-extract": 0.5, "exact_match_stderr,flexible-extract": "N/A"},
        "humaneval": {"pass@1,create_test": 0.75, "pass@1_stderr,create_test": 0.05},
        "mmlu_virology": {"acc,none": 0.5},
        "mmlu_astronomy": {"acc,none": 1.0},
        "mmlu": {"acc,none": 0.625, "acc_stderr,none": 0.02, "alias": "mmlu"},
    }
    counts = {"gsm8k": 8, "humaneval": 4, "mmlu_virology": 3, "mmlu_astronomy": 1}
    more = {
        "n-samples": {task: {"original": 9, "effective": count} for task, count in counts.items()},
        "group_subtasks": {"mmlu": ["mmlu_other", "mmlu_stem"], "mmlu_other": ["mmlu_virology"]}
        | {"mmlu_stem": ["mmlu_astronomy"]},
        "comparison": {"gsm8k,exact_match,strict-match": {"p": 0.5, "verdict": "may be chance"}},
    }
    write(record.path / "t.json", {**results("x"), "results": scores, **more})
    found = task_table([record], []).columns["run"]
    assert found["gsm8k", "exact_match,strict-match"].verdict == "may be chance, p 0.500"
    assert (found["gsm8k", "exact_match,flexible-extract"].error, found["humaneval", "pass@1"].error) == (None, 0.05)
    assert (found["mmlu", "acc"].value, found["mmlu", "acc"].items) == (0.625, 4)
    assert found["humaneval", "pass@1"].items == 4


def test_other_numbers_of_items_are_said(tmp_path: Path) -> None:
    first, second = run(tmp_path / "first"), run(tmp_path / "second")
    write(first.path / "t.json", results("x", items=40))
    write(second.path / "t.json", results("x", items=500))
    assert task_table([first, second], []).notes() == [
        "piqa: the columns are of different numbers of items (40, 500); they do not compare"
    ]


def test_two_answers_of_a_run_to_one_task_are_refused_unless_one_is_given(tmp_path: Path) -> None:
    record = run(tmp_path / "run")
    write(record.path / "a.json", results("x", value=0.1))
    second = write(record.path / "b.json", results("x", value=0.9))
    with pytest.raises(DataError, match=r"b.json: answers piqa for 'run', as .*a.json does; give one of them"):
        task_table([record], [])
    assert task_table([record], [f"run={second}"]).columns["run"]["piqa", "acc"].value == 0.9
