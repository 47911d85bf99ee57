"""Tasks on every runtime, and beside lm-evaluation-harness's own class for Transformers; `make tasks` installs it."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from edgerazor.checkpoint import open_checkpoint, pack_model
from edgerazor.core.registry import Registry
from edgerazor.errors import ExportError
from edgerazor.models.transformers_runtime import TransformersRuntime
from edgerazor.schemas.recipe import load_recipe
from tests.commands import fail, invoke, succeed
from tests.evaluate.task_rows import CHOSEN, ROWS, save_rows
from tests.hub import offline_cache
from tests.runs import quantization, save_model

lm_eval = pytest.importorskip("lm_eval", reason="the extra eval is not installed: make tasks")
from lm_eval.api.instance import Instance  # noqa: E402
from lm_eval.evaluator import evaluate  # noqa: E402
from lm_eval.models.huggingface import HFLM  # noqa: E402

from edgerazor.evaluate.side_by_side import evaluate_tasks  # noqa: E402
from edgerazor.evaluate.tasks.catalog import ETHICS, TASKS  # noqa: E402
from edgerazor.evaluate.tasks.harness import RowsTask  # noqa: E402
from edgerazor.evaluate.tasks.language_model import RuntimeLM  # noqa: E402
from edgerazor.evaluate.tasks.request_cache import RequestCache  # noqa: E402
from edgerazor.evaluate.tasks.results import read_results  # noqa: E402
from edgerazor.evaluate.tasks.run import TaskRun  # noqa: E402

pytestmark = pytest.mark.slow
NO_CACHE = RequestCache(None, "")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`model`, a 16-bit folder; `packed`, its student whose activations are not rounded; `rows`."""
    folder = tmp_path_factory.mktemp("tasks")
    save_model(folder / "model")
    save_rows(folder / "rows")
    return folder


@pytest.fixture(scope="module")
def packed(folder: Path, registry: Registry) -> Path:
    weights = {"weights": quantization()["weights"]}
    recipe = load_recipe({"model": {"name_or_path": str(folder / "model")}, "quantization": weights}, registry=registry)
    pack_model(recipe, registry=registry, output=folder / "packed")
    return folder / "packed"


def tasks() -> dict[str, RowsTask]:
    return {name: RowsTask(TASKS[name], ROWS[name]) for name in CHOSEN}


def loaded(path: Path) -> tuple[Any, Any]:
    model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)
    return model, AutoTokenizer.from_pretrained(path)


@pytest.fixture(scope="module")
def reference(folder: Path) -> HFLM:
    """The class of lm-evaluation-harness itself."""
    model, tokenizer = loaded(folder / "model")
    return HFLM(pretrained=model, tokenizer=tokenizer, batch_size=4, max_length=128)


def ours(path: Path, cache: RequestCache = NO_CACHE) -> RuntimeLM:
    return RuntimeLM(TransformersRuntime(*loaded(path)), cache)


def items(results: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    return {name: sorted(found, key=lambda item: item["doc_id"]) for name, found in results["samples"].items()}


def test_every_item_is_answered_as_by_the_harness_itself(folder: Path, reference: HFLM) -> None:
    ours_found = evaluate(ours(folder / "model"), tasks(), bootstrap_iters=0)
    theirs_found = evaluate(reference, tasks(), bootstrap_iters=0)
    assert ours_found["results"] == theirs_found["results"]
    theirs = items(theirs_found)
    for name, found in items(ours_found).items():
        for item, other in zip(found, theirs[name], strict=True):
            assert item["arguments"] == other["arguments"]
            for (value, greedy), (expected, expected_greedy) in zip(
                item["filtered_resps"], other["filtered_resps"], strict=True
            ):
                assert value == pytest.approx(expected, rel=1e-4) and greedy == expected_greedy
            assert [item[metric] for metric in item["metrics"]] == [other[metric] for metric in other["metrics"]]


TEMPLATE = (
    "{% for message in messages %}<{{ message.role }}>{{ message.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% if enable_thinking is false %}()\n{% endif %}{% endif %}"
)


@pytest.mark.subprocess
@pytest.mark.parametrize(
    "prompts",
    [
        {},
        {"apply_chat_template": True, "system_instruction": "Be brief."},
        {"apply_chat_template": True, "fewshot_as_multiturn": True},
    ],
)
def test_examples_templates_and_written_answers_are_those_of_the_harness_itself(
    folder: Path, prompts: dict[str, Any]
) -> None:
    model, tokenizer = loaded(folder / "model")
    tokenizer.chat_template = TEMPLATE
    found = []
    reference = HFLM(pretrained=model, tokenizer=tokenizer, batch_size=2, max_length=256)
    model.config.max_position_embeddings = 256
    for each in (RuntimeLM(TransformersRuntime(model, tokenizer), NO_CACHE), reference):
        names = ("boolq", "winogrande", "ethics_cm", "truthfulqa_mc2", "gsm8k", "humaneval_instruct")
        chosen = {name: RowsTask(TASKS[name], ROWS[TASKS[name].file_of_rows][:3], num_fewshot=1) for name in names}
        for name in names[-2:]:
            chosen[name].set_config("generation_kwargs", {"max_gen_toks": 8}, update=True)
        found.append(evaluate(each, chosen, bootstrap_iters=0, confirm_run_unsafe_code=True, limit=2, **prompts))
    ours, theirs = (items(each) for each in found)
    assert found[0]["n-shot"] == found[1]["n-shot"] and found[0]["n-shot"]["gsm8k"] == 1
    for name, answered in ours.items():
        for item, other in zip(answered, theirs[name], strict=True):
            assert item["arguments"] == other["arguments"]
            assert [item[metric] for metric in item["metrics"]] == pytest.approx(
                [other[metric] for metric in other["metrics"]], rel=1e-4
            )
            if name in names[-2:]:
                assert item["resps"] == other["resps"]


@pytest.mark.subprocess
def test_a_published_group_asks_some_tasks_through_the_template(
    folder: Path, registry: Registry, tmp_path: Path
) -> None:
    data = save_rows(tmp_path / "rows", {name: ROWS[name] for name in ("piqa", "mmlu", "humaneval", *ETHICS)})
    run = TaskRun(["edgerazor_instruct"], data, limit=1, run_code=True)
    with pytest.raises(ExportError, match="has no chat template; leave"):
        run.measure(folder / "model", registry)
    shutil.copytree(folder / "model", tmp_path / "chat")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "chat")
    tokenizer.chat_template = TEMPLATE
    tokenizer.save_pretrained(tmp_path / "chat")
    found = run.measure(tmp_path / "chat", registry)
    (asked,) = found["samples"]["humaneval_instruct"]
    assert (
        asked["arguments"][0][0].startswith("<user>Write a solution") and "<assistant>Here" in asked["arguments"][0][0]
    )
    assert not any("<user>" in item["arguments"][0][0] for item in found["samples"]["piqa"])
    result = read_results(found, found, run.missing)
    assert [row.task for row in result.rows][:2] == ["piqa", "piqa"]
    assert {"mmlu", "mmlu_stem", "mmlu_other", "hendrycks_ethics", "humaneval_instruct"} <= {
        row.task for row in result.rows
    }
    mean = next(row for row in result.rows if row.task == "mmlu")
    assert mean.items == 3 and mean.comparison is not None and mean.comparison.p == 1
    assert mean.student.value == found["groups"]["mmlu"]["acc,none"]


def test_whole_texts_and_written_ones_are_those_of_the_harness(folder: Path, reference: HFLM) -> None:
    texts = ["def f1(x):\n    return x", "a text without code in it that is longer than the context " * 4]
    whole = [Instance("loglikelihood_rolling", {}, (text,), 0) for text in texts]
    model = ours(folder / "model")
    found, expected = model.loglikelihood_rolling(whole), reference.loglikelihood_rolling(whole, disable_tqdm=True)
    assert found == pytest.approx(expected, rel=1e-4)
    settings = {"max_gen_toks": 12, "do_sample": False}
    text = reference.generate_until([Instance("generate_until", {}, (texts[0], {"until": []} | settings), 0)])[0]
    for until in ([], [text[3:5]], [text[6:8], text[2:5]]):
        requests = [Instance("generate_until", {}, (given, {"until": until} | settings), 0) for given in texts]
        assert model.generate_until(requests) == reference.generate_until(requests, disable_tqdm=True)


def export(packed: Path, name: str, registry: Registry, path: Path) -> Path:
    registry.build(registry.params("exporter", name, path=str(path))).export(open_checkpoint(packed), path)
    return path


@pytest.mark.parametrize("engine", ["onnx", pytest.param("gguf", marks=pytest.mark.llamacpp)])
def test_runtimes_choose_alike(packed: Path, engine: str, registry: Registry, tmp_path: Path) -> None:
    pytest.importorskip({"onnx": "onnxruntime", "gguf": "llama_cpp"}[engine])
    run = TaskRun(list(CHOSEN), packed.parent / "rows")
    ours, theirs = (
        items(run.measure(path, registry)) for path in (packed, export(packed, engine, registry, tmp_path / engine))
    )
    for name, found in ours.items():
        for item, other in zip(found, theirs[name], strict=True):
            values, others = (np.array([value for value, _ in each["filtered_resps"]]) for each in (item, other))
            assert np.abs(values - others).max() < 0.05 * np.abs(values).max()
            assert values.argmax() == others.argmax()


def test_questions_side_by_side_are_answered_as_one_by_one(folder: Path) -> None:
    found = []
    for batch_size in (1, 5):
        model = RuntimeLM(TransformersRuntime(*loaded(folder / "model")), NO_CACHE, batch_size=batch_size)
        found.append(items(evaluate(model, tasks(), bootstrap_iters=0)))
    for name, answered in found[0].items():
        for item, other in zip(answered, found[1][name], strict=True):
            assert [item[metric] for metric in item["metrics"]] == [other[metric] for metric in other["metrics"]]
            for (value, greedy), (together, too) in zip(item["filtered_resps"], other["filtered_resps"], strict=True):
                assert together == pytest.approx(value, rel=1e-4) and too == greedy


class Interrupted(TransformersRuntime):
    """Is interrupted at a computation, as by Ctrl-C; counts them."""

    left = 1 << 30
    done = 0

    def compute(self, ids: Any, *, every: bool) -> Any:
        if not self.left:
            raise KeyboardInterrupt
        self.left, self.done = self.left - 1, self.done + 1
        return super().compute(ids, every=every)


def test_an_interrupted_run_goes_on_from_what_was_answered(folder: Path, tmp_path: Path) -> None:
    def measure(cache: RequestCache, left: int = 1 << 30) -> tuple[Any, int]:
        runtime = Interrupted(*loaded(folder / "model"))
        runtime.left = left
        return evaluate(RuntimeLM(runtime, cache), tasks(), bootstrap_iters=0), runtime.done

    expected, whole = measure(NO_CACHE)
    path = tmp_path / "answers.sqlite"
    with pytest.raises(KeyboardInterrupt):
        measure(RequestCache(path, "m"), whole // 2)
    found, rest = measure(RequestCache(path, "m"))
    assert found["results"] == expected["results"]
    assert 0 < rest <= whole - whole // 2 + 2  # a context that was read for an answer already there is read again
    assert measure(RequestCache(path, "m"))[1] == 0


def test_what_contexts_begin_with_is_read_once(folder: Path) -> None:
    runtime = TransformersRuntime(*loaded(folder / "model"))
    read: list[int] = []
    compute: Callable[..., Any] = runtime.compute
    runtime.compute = lambda ids, every: read.append(len(ids)) or compute(ids, every=every)  # type: ignore[method-assign]
    model = RuntimeLM(runtime, NO_CACHE)
    assert model._loglikelihood_tokens([((), [1] * 20, [2]), ((), [1] * 20, [3, 4]), ((), [1] * 20, [5])])
    assert read == [20, 1]


def test_a_student_beside_its_teacher(packed: Path, registry: Registry, tmp_path: Path) -> None:
    model, output = packed.parent / "model", tmp_path / "results.json"
    data = save_rows(tmp_path / "data", {name: ROWS[name] for name in CHOSEN})
    words = ("--data", data, "--cache", tmp_path / "answers.sqlite", "--output", output)
    shown = succeed("evaluate", packed, "--tasks", "edgerazor_base", "--teacher", model, "--limit", 3, *words)
    assert "may be chance" in shown and "only teacher right" in shown and "± " in shown and "first 3 rows" in shown
    written = json.loads(output.read_text())
    assert written["n-samples"]["arc_easy"]["effective"] == 3 and written["n-shot"]["arc_easy"] == 0
    assert written["versions"]["arc_easy"] == 1.0
    assert written["missing"].keys() == {*ETHICS, "truthfulqa_mc2", "mmlu", "gsm8k", "humaneval"}
    result = evaluate_tasks(packed, TaskRun(["edgerazor_base"], data, 3), registry=registry)
    assert json.loads(result.to_json())["results"] == written["results"]
    for row in result.rows:
        assert written["results"][row.task][f"{row.metric},none"] == row.student.value
        compared, teacher = written["comparison"][f"{row.task},{row.metric}"], written["teacher"]["results"][row.task]
        difference = row.student.value - teacher[f"{row.metric},none"]
        assert compared["student_only"] - compared["teacher_only"] == pytest.approx(difference * row.items)


def test_a_teacher_of_the_hub_is_the_one_in_the_cache(
    packed: Path, registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    offline_cache(tmp_path / "cache", monkeypatch)("somebody/tiny", "main", packed.parent / "model")
    run = TaskRun(["boolq"], packed.parent / "rows", cache=tmp_path / "answers.sqlite")
    by_folder = evaluate_tasks(packed, run, registry=registry, teacher=packed.parent / "model")
    assert evaluate_tasks(packed, run, registry=registry, teacher=Path("somebody/tiny")).rows == by_folder.rows
    words = ("--data", packed.parent / "rows", "--no-cache", "--teacher", "somebody/other")
    message = fail("evaluate", packed, "--tasks", "boolq", *words)
    assert "somebody/other: no usable config.json: there is no such folder, and no model of that name" in message


def test_a_file_that_is_missing_is_named(folder: Path, tmp_path: Path) -> None:
    data = save_rows(tmp_path / "data", {"arc_easy": ROWS["arc_easy"]})
    words = ("evaluate", folder / "model", "--no-cache", "--data")
    shown = invoke(*words, data, "--tasks", "arc_easy").stderr
    assert f"{folder / 'model'}: 11 of 11 requests, 0:00:00 left" in shown
    assert f"{data / 'piqa'}.jsonl: there is no such file" in fail(*words, data, "--tasks", "arc_easy,piqa")
    assert f"{tmp_path / 'no'}: there is no such folder" in fail(*words, tmp_path / "no", "--tasks", "edgerazor_base")
    assert "no task 'arc'" in fail(*words, data, "--tasks", "arc")
