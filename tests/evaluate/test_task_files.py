"""Names of tasks, files of their rows, McNemar's test and the answers kept on disk; nothing here runs a model."""

import json
import sqlite3
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import parquet

from edgerazor.errors import DataError, OutputError
from edgerazor.evaluate.tasks.catalog import GROUPS, TASKS, choose_tasks
from edgerazor.evaluate.tasks.compare import compare_answers, mcnemar
from edgerazor.evaluate.tasks.request_cache import RequestCache, identify_model
from edgerazor.evaluate.tasks.rows import find_file, read_rows
from tests.commands import fail, succeed
from tests.evaluate.hub_rows import HUB_ROWS
from tests.evaluate.task_rows import CHOICES, ROWS, save_rows

DISAGREEMENTS = st.integers(0, 400)


@pytest.mark.parametrize(
    ("first", "second", "p"),
    [(0, 0, 1.0), (5, 5, 1.0), (0, 5, 0.0625), (1, 9, 22 / 1024), (10, 2, 158 / 4096), (0, 1, 1.0), (0, 6, 0.03125)],
)
def test_mcnemar_is_the_exact_binomial_test(first: int, second: int, p: float) -> None:
    assert mcnemar(first, second) == p


@given(DISAGREEMENTS, DISAGREEMENTS)
def test_mcnemar_is_a_probability_and_knows_no_side(first: int, second: int) -> None:
    assert 0 <= mcnemar(first, second) == mcnemar(second, first) <= 1
    if second > first:
        assert mcnemar(first, second + 1) <= mcnemar(first, second)


def test_a_difference_that_may_be_chance_is_called_so() -> None:
    right, wrong = [True] * 6, [False] * 6
    assert compare_answers(right, wrong).verdict == "student better"
    assert compare_answers(wrong, right).verdict == "teacher better"
    assert compare_answers([*right, False], [*right[1:], True, True]).verdict == "may be chance"
    assert compare_answers(right, right).p == 1


def test_a_group_stands_for_its_members_and_says_which_are_asked_by_the_chat_template() -> None:
    for name, members in GROUPS.items():
        chosen = choose_tasks([name])
        assert [task.name for task in chosen.tasks] == list(members) and not chosen.alone
        assert chosen.chat == (frozenset({"humaneval_instruct", "ifeval"}) & set(members))
    chosen = choose_tasks(["piqa, arc_easy", "piqa", "ifeval", "edgerazor_instruct"])
    assert [task.name for task in chosen.tasks][:3] == ["piqa", "arc_easy", "ifeval"]
    assert chosen.alone == {"piqa", "arc_easy", "ifeval"} and chosen.chat == {"humaneval_instruct"}
    with pytest.raises(DataError, match=r"no task 'arc-easy'; did you mean 'arc_easy'\?"):
        choose_tasks(["arc-easy"])
    with pytest.raises(DataError, match="names no task; there are: arc_easy"):
        choose_tasks([" ,"])


@pytest.mark.parametrize(
    ("task", "change", "message"),
    [
        ("piqa", {"choices": None}, "choices: expected a list of two texts or more, got null"),
        ("piqa", {"choices": ["a"]}, "choices: expected a list of two texts or more, got a list"),
        ("piqa", {"choices": ["a", ""]}, "choices: expected a list of two texts or more, got a list"),
        ("piqa", {"label": 3}, "label: expected 0 to 2, an index of its choices, got 3"),
        ("piqa", {"label": True}, "label: expected a whole number, got true"),
        ("piqa", {"label": "A"}, "label: expected a whole number, got 'A'"),
        ("piqa", {"question": ""}, "question: expected text, got ''"),
        ("winogrande", {}, "question: expected a blank, written _, where the choices go"),
        ("boolq", {}, "passage: is missing; it has: question, choices, label"),
        ("boolq", {"Passage": "x"}, "passage: is missing; did you mean 'Passage'?"),
        ("boolq", {"passage": "x", "label": 2}, "label: expected 0 to 1, an index of its choices, got 2"),
        ("mmlu", {"subject": "virology", "answer": 4}, "answer: expected 0 to 3, an index of its choices, got 4"),
        ("mmlu", {"subject": "virology", "answer": 2}, "choices: expected 4 of them, got 3"),
        ("truthfulqa_mc2", {"mc2_targets": 3}, "mc2_targets: expected an object with choices, labels, got 3"),
        ("truthfulqa_mc2", {"mc2_targets": {}}, "mc2_targets.choices: is missing; it has: nothing"),
        (
            "truthfulqa_mc2",
            {"mc2_targets": {"choices": ["a", "b"], "labels": [0, 0]}},
            "mc2_targets.labels: expected a list of 0 or 1 for each choice, a 1 among them, got [0, 0]",
        ),
        (
            "ifeval",
            {"key": 1, "prompt": "x", "instruction_id_list": ["a", "b"], "kwargs": [{}]},
            "kwargs: expected an object for each of instruction_id_list",
        ),
        (
            "humaneval",
            {"prompt": "x", "test": "x"},
            "entry_point: is missing; it has: question, choices, label, prompt, test",
        ),
    ],
)
def test_a_malformed_row_is_named(tmp_path: Path, task: str, change: dict, message: str) -> None:
    path = tmp_path / f"{task}.jsonl"
    path.write_text(f"{json.dumps(ROWS[task][0])}\n\n{json.dumps({**CHOICES[0], **change})}\n")
    with pytest.raises(DataError) as error:
        read_rows(path, TASKS[task])
    assert str(error.value) == f"{path}:3: {message}"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{", ":1: is not valid JSON"),
        (b"[" * 100_000, ":1: is not valid JSON"),
        (b"[]", ":1: expected an object with question, choices, label, got a list"),
        (b"\xff", ": cannot be read: 'utf-8' codec"),
        (b"\n", ": holds no rows; expected lines with question, choices, label"),
    ],
)
def test_a_file_that_holds_no_rows_is_named(tmp_path: Path, content: bytes, message: str) -> None:
    for suffix in ("jsonl", "jsonl.gz"):
        path = tmp_path / f"piqa.{suffix}"
        path.write_bytes(content)
        with pytest.raises(DataError) as error:
            read_rows(path, TASKS["piqa"])
        assert str(error.value).startswith(f"{path}{message}" if suffix == "jsonl" else f"{path}: cannot be read: ")


def test_rows_are_read_whether_compressed_or_not(tmp_path: Path) -> None:
    folder = save_rows(tmp_path)
    for task in TASKS.values():
        path = find_file(folder, task.file_of_rows)
        assert path is not None and read_rows(path, task) == ROWS[task.file_of_rows]


def test_answers_outlive_a_process_that_is_killed_and_belong_to_one_model(tmp_path: Path) -> None:
    path, weights = tmp_path / "cache" / "answers.sqlite", tmp_path / "weights"
    weights.write_bytes(b"1")
    first = RequestCache(path, identify_model(weights, "engine 1"))
    first.put([-1.5, True], "loglikelihood", [1], [2])  # and is never closed
    again = RequestCache(path, identify_model(weights, "engine 1"))
    assert again.get("loglikelihood", [1], [2]) == [-1.5, True]
    assert again.get("loglikelihood", [1, 2], []) is None
    assert RequestCache(path, identify_model(weights, "engine 2")).get("loglikelihood", [1], [2]) is None
    weights.write_bytes(b"22")
    assert RequestCache(path, identify_model(weights, "engine 1")).get("loglikelihood", [1], [2]) is None
    assert RequestCache(None, "").get("loglikelihood", [1], [2]) is None


def test_a_file_of_something_else_is_not_written_to(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("notes " * 1000)
    with pytest.raises(OutputError, match=rf"{path}: cannot keep answers there"):
        RequestCache(path, "")
    assert path.read_text().startswith("notes")
    other = tmp_path / "other.sqlite"
    with sqlite3.connect(other) as connection:
        connection.execute("CREATE TABLE answers (x)")
    with pytest.raises(OutputError, match="another --cache"):
        RequestCache(other, "").get("loglikelihood", [], [])


def test_options_that_do_not_go_together_are_refused(tmp_path: Path) -> None:
    assert "--tasks needs --data: a folder" in fail("evaluate", tmp_path, "--tasks", "piqa")
    assert "--set changes held-out data" in fail("evaluate", tmp_path, "--tasks", "piqa", "--set", "data.seed=1")
    for words in (
        ("--limit", 3),
        ("--no-cache",),
        ("--num-fewshot", 0),
        ("--batch-size", 1),
        ("--confirm-run-unsafe-code",),
    ):
        assert "--tasks is missing" in fail("evaluate", tmp_path, *words)


@pytest.mark.parametrize("name", TASKS)
def test_public_files_become_rows(tmp_path: Path, name: str) -> None:
    rows, found = [HUB_ROWS[name]] * 2, []
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    parquet.write_table(pa.Table.from_pylist(rows), tmp_path / "b.parquet")
    for source in ("a.jsonl", "b.parquet"):
        output = tmp_path / source.replace(".", "_")
        assert "2 rows" in succeed("eval-data", tmp_path / source, "--task", name, "--output", output)
        found.append(read_rows(output / f"{TASKS[name].file_of_rows}.jsonl", TASKS[name]))
    assert found[0] == found[1] and len(found[0]) == 2
    for column in ("answerKey", "label", "answer", "sentence_bad", "baseline", "mc2_targets", "kwargs", "test"):
        if column in HUB_ROWS[name]:
            without = {key: value for key, value in HUB_ROWS[name].items() if key != column}
            (tmp_path / "a.jsonl").write_text(json.dumps(without))
            message = fail("eval-data", tmp_path / "a.jsonl", "--task", name, "--output", tmp_path / "none")
            assert f"a.jsonl:1: {name}: has no column '" in message and not (tmp_path / "none").exists()


def test_allen_ai_nests_its_questions_and_a_hidden_answer_is_refused(tmp_path: Path) -> None:
    choices = [{"text": "mice", "label": "A"}, {"text": "stones", "label": "B"}]
    row = {"question": {"stem": "Cats eat", "choices": choices}, "answerKey": "B"}
    source = tmp_path / "a.jsonl"
    source.write_text(json.dumps(row))
    for name in ("arc_easy", "openbookqa"):
        succeed("eval-data", source, "--task", name, "--output", tmp_path)
        expected = {"question": "Cats eat", "choices": ["mice", "stones"], "label": 1}
        assert read_rows(tmp_path / f"{name}.jsonl", TASKS[name]) == [expected]
    source.write_text(json.dumps({**HUB_ROWS["winogrande"], "answer": ""}))
    assert "or its answer is not public" in fail("eval-data", source, "--task", "winogrande", "--output", tmp_path)
    source.write_text(json.dumps({**HUB_ROWS["piqa"], "label": -1}))
    assert "a.jsonl:1: label: expected 0 to 1" in fail("eval-data", source, "--task", "piqa", "--output", tmp_path)
    assert "no task 'arc'" in fail("eval-data", source, "--task", "arc", "--output", tmp_path)


def test_the_authors_own_files_become_the_same_rows(tmp_path: Path) -> None:
    own = {
        "truthfulqa_mc2": {
            "question": "What do cats eat?",
            "mc2_targets": {"Mice.": 1, "Meat.": 1, "Stones.": 0},
        },
        "ethics_virtue": {"label": 0, "scenario": "Ann fed Bo. [SEP] cruel"},
        "mmlu": {**HUB_ROWS["mmlu"], "answer": "B"},
    }
    for name, row in own.items():
        found = []
        for content in (row, HUB_ROWS[name]):
            (tmp_path / "a.json").write_text(json.dumps([content]))
            succeed("eval-data", tmp_path / "a.json", "--task", name, "--output", tmp_path)
            found.append(read_rows(tmp_path / f"{name}.jsonl", TASKS[name]))
        assert found[0] == found[1]


def test_examples_are_written_beside_the_rows(tmp_path: Path) -> None:
    source = tmp_path / "a.jsonl"
    for name, written in (("gsm8k", "gsm8k.train.jsonl"), ("mmlu", "mmlu.dev.jsonl")):
        source.write_text(json.dumps(HUB_ROWS[name]))
        assert written in succeed("eval-data", source, "--task", name, "--output", tmp_path, "--shots")
        assert len(read_rows(tmp_path / written, TASKS[name])) == 1
    source.write_text(json.dumps(HUB_ROWS["truthfulqa_mc2"]))
    message = fail("eval-data", source, "--task", "truthfulqa_mc2", "--output", tmp_path, "--shots")
    assert "truthfulqa_mc2 takes no examples" in message
