"""The demonstration of examples/smollm2 on a tiny stand-in: every stage, once; nothing is downloaded."""

import io
import json
import re
import tomllib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console
from smollm2_demo import budget
from smollm2_demo.demo import run
from smollm2_demo.greedy import Written, compare, read_along, write_greedily
from smollm2_demo.int8_inputs import int8_inputs
from smollm2_demo.options import STUDENTS, Options
from smollm2_demo.students import Students
from smollm2_demo.tasks import log_likelihood, read_items
from smollm2_demo.teacher import PACKAGE, TEXTS, VERSION, compare_tokens, convert
from transformers import AutoModelForCausalLM, AutoTokenizer

from edgerazor import load_recipe
from edgerazor.checkpoint.pack_source import pack_source
from edgerazor.core.registry import Registry
from edgerazor.errors import CheckpointError, DataError, TrainingError
from edgerazor.export.export import export_to
from edgerazor.inference.open_runtime import open_runtime
from edgerazor.models.transformers_runtime import TransformersRuntime
from tests.examples.smollm2_cases import LINES, save_dialogues, save_items, save_model, tokenizer

ROOT = Path(__file__).parents[2]
PROBES = {"4-bit": {"seconds": 2.0, "tokens": 512.0}, "2.79-bit": {"seconds": 2.5, "tokens": 512.0}}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("smollm2") / "model")


@pytest.mark.slow
def test_every_stage_runs_once_and_a_second_call_repeats_none(tmp_path: Path, model: Path, registry) -> None:
    pytest.importorskip("llama_cpp")
    data, task = save_dialogues(tmp_path / "data.jsonl"), save_items(tmp_path / "task.jsonl")
    options = Options(tmp_path / "out", data, model=model, smoke=True, tasks=(task,), students=STUDENTS[1:])
    assert run(options, console=Console(quiet=True), registry=registry) == 0
    screen = Console(file=io.StringIO(), width=400)
    assert run(options, console=screen, registry=registry) == 0
    lines = [line for line in screen.file.getvalue().splitlines() if re.match(r"\[ +\d+ s\]", line)]
    assert len(lines) > 12 and all(line.endswith("finished before") for line in lines)

    results = json.loads((options.output / "results.json").read_text(encoding="utf-8"))
    contestants = ("rounded", "calibrated", "distilled")
    kinds = [f"{student.name} {kind}" for kind in contestants for student in options.students]
    assert list(results["models"]) == ["teacher", *kinds]
    assert results["models"]["teacher"]["kl_teacher"] == pytest.approx(0, abs=1e-6)
    for student in options.students:
        assert results["models"][f"{student.name} distilled"]["steps"] == 4
        assert results["same_tokens"][student.name]["ONNX Runtime"][0]["tokens"] == 12
        assert [row["engine"].split()[0] for row in results["speeds"][student.name]] == [
            "Transformers",
            "llama.cpp",
            "ONNX",
        ]
        assert not (options.output / student.name / "onnx-float32").exists()
    assert results["tasks"][task.name]["teacher"]["items"] == 4
    report = (options.output / "report.md").read_text(encoding="utf-8")
    assert all(claim["text"] in report for claim in results["claims"])

    # Killed between the end of a training and the note that it is finished: this stage alone is done again.
    stages = options.output / "stages.json"
    stored = json.loads(stages.read_text(encoding="utf-8"))
    first = stored["done"].pop("2.79-bit distilled")["figures"]
    stages.write_text(json.dumps(stored), encoding="utf-8")
    assert run(options, console=Console(quiet=True), registry=registry) == 0
    again = json.loads(stages.read_text(encoding="utf-8"))["done"]["2.79-bit distilled"]["figures"]
    timed = {"seconds": 0, "tokens_per_second": 0}
    assert {**first, **timed} == {**again, **timed}
    with pytest.raises(TrainingError, match="holds a run with seed 0"):
        run(replace(options, seed=1), registry=registry)


@pytest.mark.slow
@pytest.mark.parametrize("student", STUDENTS, ids=lambda student: student.name)
def test_students_begin_at_what_is_calibrated_already(student, tmp_path: Path, model: Path, registry) -> None:
    options = Options(tmp_path / "out", save_dialogues(tmp_path / "data.jsonl"), model=model, smoke=True)
    students = Students(options, model, registry, Console(quiet=True))
    students.calibrate(student)
    students.train(student, {"seconds": 1.0, "steps": 1.0})
    folder = options.output / student.name
    run = load_recipe(folder / "run" / "recipe.yaml", registry=registry)
    assert run.training.start == str(folder / "calibrated")


@pytest.mark.llamacpp
@pytest.mark.slow
def test_a_gguf_becomes_a_folder_whose_tokenizer_splits_digits_as_llama_cpp_does(tmp_path, model, registry) -> None:
    packed, gguf, folder = tmp_path / "packed", tmp_path / "model.gguf", tmp_path / "teacher"
    pack_source(str(model), registry=registry, output=packed, preset="4-bit")
    export_to(packed, "gguf", gguf, registry=registry)
    convert(gguf, folder)
    words = AutoTokenizer.from_pretrained(folder)
    assert words.tokenize("12345") == list("12345")
    for text in (*LINES, *TEXTS):
        assert words(text)["input_ids"] == tokenizer()(text)["input_ids"]
    pytest.importorskip("llama_cpp")
    runtime = open_runtime(gguf, registry=registry)
    assert compare_tokens(runtime, folder) == len(TEXTS) + 1
    runtime.close()
    assert AutoModelForCausalLM.from_pretrained(folder).dtype == torch.bfloat16


def test_the_plan_spends_what_measuring_leaves_and_says_how_many_minutes_are_too_few() -> None:
    plan = budget.divide(20, 60, PROBES, STUDENTS)
    assert sum(row["seconds"] for row in plan.values()) < 20 * 60 - 60
    for name, row in plan.items():
        assert row["steps"] == int(row["seconds"] / PROBES[name]["seconds"])
        assert row["tokens"] == 512 * row["steps"]
    with pytest.raises(TrainingError, match="is too short here") as error:
        budget.divide(1, 60, PROBES, STUDENTS)
    enough = float(re.search(r"at least ([\d.]+)$", str(error.value))[1])
    assert all(row["steps"] >= budget.LEAST_STEPS for row in budget.divide(enough, 60, PROBES, STUDENTS).values())


def written(*rows: list[float]) -> Written:
    logits = np.array(rows, dtype=np.float32)
    return Written(logits.argmax(-1).tolist(), logits)


def test_a_first_difference_is_a_tie_only_within_what_the_engine_moves_elsewhere() -> None:
    ours = written([2.0, 1.9, 0.0], [5.0, 1.0, 0.0], [0.0, 1.0, 5.0])
    same = compare(ours, ours)
    assert (same.tokens, same.wanted, same.tie) == (3, 3, True)
    other = Written(ours.ids, np.array([[1.9, 2.0, 0.0], [5.0, 1.2, 0.0], [0.0, 1.0, 5.0]], dtype=np.float32))
    tie = compare(ours, other)
    assert (tie.tokens, tie.tie) == (0, True)
    assert (tie.gap, tie.rounding) == (pytest.approx(0.1, abs=1e-5), pytest.approx(0.2, abs=1e-5))
    wrong = compare(ours, Written(ours.ids, np.array([[2.0, 1.9, 0.0], [0.0, 1.2, 0.0], [0.0, 1.0, 5.0]])))
    assert (wrong.tokens, wrong.gap, wrong.tie, wrong.rounded_gap) == (1, 4.0, False, None)


def test_what_rounding_alone_does_to_the_reference_counts_as_the_engines() -> None:
    ours, other = written([2.0, 1.0, 0.0], [5.0, 1.0, 0.0]), written([0.9, 1.0, 0.0], [5.0, 1.0, 0.0])
    other = Written(ours.ids, other.logits)
    assert not compare(ours, other).tie
    rounded = Written(ours.ids, np.array([[1.5, 1.0, 0.0], [3.5, 1.0, 0.0]], dtype=np.float32))
    tie = compare(ours, other, rounded)
    assert (tie.tokens, tie.gap, tie.rounding, tie.rounded_gap, tie.tie) == (0, 1.0, 1.5, 0.5, True)


def test_inputs_are_rounded_for_a_block_only(model: Path, registry: Registry) -> None:
    loaded, ids = AutoModelForCausalLM.from_pretrained(model), torch.arange(1, 9)[None]
    before = loaded(ids).logits
    with int8_inputs(loaded, registry):
        inside = loaded(ids).logits
    assert torch.equal(loaded(ids).logits, before)
    assert 0 < float((inside - before).norm()) < 0.05 * float(before.norm())


def test_an_engine_that_reads_along_has_the_logits_of_one_that_writes(model: Path) -> None:
    runtime = TransformersRuntime(AutoModelForCausalLM.from_pretrained(model), AutoTokenizer.from_pretrained(model))
    text = write_greedily(runtime, "What is 1 plus 2?", 6)
    assert compare(text, read_along(runtime, "What is 1 plus 2?", text.ids)).rounding == 0
    assert compare(text, read_along(runtime, "What is 3 plus 2?", text.ids)).rounding > 0


def test_a_choice_is_scored_by_the_tokens_behind_the_question(model: Path) -> None:
    runtime = TransformersRuntime(AutoModelForCausalLM.from_pretrained(model), AutoTokenizer.from_pretrained(model))
    prompt, choice = "Question: What is 1 plus 2?\nAnswer:", " It is 3"
    ids = torch.tensor([runtime.encode_text(prompt + choice)])
    start = len(runtime.encode_text(prompt))
    assert ids[0, :start].tolist() == runtime.encode_text(prompt)
    with torch.no_grad():
        log_probabilities = AutoModelForCausalLM.from_pretrained(model)(ids).logits.float().log_softmax(-1)[0]
    expected = sum(float(log_probabilities[at - 1, ids[0, at]]) for at in range(start, ids.shape[1]))
    assert log_likelihood(runtime, prompt, choice) == pytest.approx(expected, rel=2e-2)


@pytest.mark.parametrize(
    "line",
    ["{", "[]", '{"question": "a", "choices": ["b"], "label": 1}', '{"question": "a", "choices": [1], "label": 0}'],
)
def test_a_line_that_is_no_item_is_named(tmp_path: Path, line: str) -> None:
    good = json.dumps({"question": "a", "choices": ["b"], "label": 0})
    with pytest.raises(DataError, match=r"items\.jsonl:2: "):
        read_items(save_items(tmp_path / "items.jsonl", [good, line]), 9)


def test_files_that_are_absent_or_empty_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="absent"):
        read_items(tmp_path / "absent", 9)
    with pytest.raises(DataError, match="no items"):
        read_items(save_items(tmp_path / "items.jsonl", []), 0)
    with pytest.raises(DataError, match="--data"):
        Options(tmp_path, tmp_path / "absent").deciding()
    with pytest.raises(CheckpointError, match="--model"):
        Options(tmp_path, tmp_path / "items.jsonl", model=tmp_path).deciding()


def test_a_bad_file_of_tasks_is_found_before_anything_is_trained(tmp_path: Path, model: Path, registry) -> None:
    options = Options(tmp_path / "out", save_dialogues(tmp_path / "data.jsonl"), model=model, tasks=(tmp_path / "no",))
    with pytest.raises(DataError, match="cannot be read"):
        run(options, registry=registry)
    assert not options.output.exists()


@pytest.mark.parametrize("student", STUDENTS, ids=lambda student: student.name)
def test_recipes_load(student, registry, model: Path) -> None:
    recipe = load_recipe(student.recipe, registry=registry, overrides=[f"model.name_or_path={model}"])
    assert recipe.training.max_seconds and recipe.distillation is not None


def test_the_extra_and_the_constraint_name_the_version_that_the_example_reads() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert f"{PACKAGE}=={VERSION}" in project["optional-dependencies"]["demo"]
    assert f"{PACKAGE}=={VERSION}" in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
