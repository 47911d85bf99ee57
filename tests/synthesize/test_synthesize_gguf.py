"""A GGUF file as the teacher: several texts in one batch of llama.cpp, the same as one by one."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from synthesize_cases import dialogues, questions, read_lines, save_talker, write_lines

from edgerazor.checkpoint.pack_source import pack_source
from edgerazor.core.contracts import Runtime
from edgerazor.core.registry import Registry
from edgerazor.errors import ExportError
from edgerazor.export.export import export_to
from edgerazor.inference.open_runtime import open_runtime
from tests.commands import succeed
from tests.runs import quantization, write_recipe

pytest.importorskip("llama_cpp")
pytestmark = pytest.mark.llamacpp
TEXTS = ([5, 6, 7, 8], [9, 10], [5, 6, 7, 11, 12, 13, 14])


def save_gguf(folder: Path, match: str, registry: Registry, **values: Any) -> Path:
    """The talker; what matches is in 8 bit, the rest in 16."""
    save_talker(folder / "float", **values)
    rules = [{"match": match, "quantizer": {"name": "int", "bits": 8, "group_size": 32}}]
    recipe = write_recipe(folder / "recipe.yaml", {"quantization": {**quantization(), "weights": rules}})
    pack_source(str(folder / "float"), registry=registry, output=folder / "packed", recipe=recipe)
    export_to(folder / "packed", "gguf", folder / "teacher.gguf", registry=registry)
    return folder / "teacher.gguf"


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory, registry: Registry) -> Path:
    """The talker in 8 bit."""
    return save_gguf(tmp_path_factory.mktemp("gguf"), "*", registry)


@pytest.fixture(scope="module")
def runtime(teacher: Path, registry: Registry) -> Iterator[Runtime]:
    opened = open_runtime(teacher, registry=registry)
    yield opened
    opened.close()


def alone(runtime: Runtime, ids: list[int]) -> Any:
    """Logits behind a text that has a cache for itself; near those of the runtime, which attends in another way."""
    sequences = runtime.open_sequences(1, 512)
    logits = sequences.feed({0: sequences.begin(0, ids)})[0]
    sequences.close()
    runtime.restart()
    expected = runtime.feed(ids)[0]
    assert np.square(logits - expected).mean() < 0.01 * np.square(expected).mean()
    return logits


def test_texts_side_by_side_have_the_logits_of_each_alone(runtime: Runtime) -> None:
    sequences = runtime.open_sequences(3, 64)
    first = sequences.feed({number: sequences.begin(number, ids) for number, ids in enumerate(TEXTS)})
    second = sequences.feed({0: [20], 2: [21, 22]})
    for row, ids in zip([*first, *second], [*TEXTS, [*TEXTS[0], 20], [*TEXTS[2], 21, 22]], strict=True):
        np.testing.assert_allclose(row, alone(runtime, ids), atol=1e-3)
    sequences.close()


def test_the_order_in_which_texts_are_given_changes_no_bit(registry: Registry, tmp_path: Path) -> None:
    """Texts out of line are run apart by llama.cpp, in products that sum otherwise, and its weights read for each."""
    file = save_gguf(tmp_path, "lm_head", registry, hidden_size=512, intermediate_size=1536)
    opened, read = open_runtime(file, registry=registry), []
    for order in (list(range(9)), [4, 0, 8, 7, 6, 5, 3, 2, 1]):
        sequences = opened.open_sequences(9, 64)
        sequences.feed({number: sequences.begin(number, [5, 6 + number, 7]) for number in range(9)})
        logits = sequences.feed({number: [20 + number] for number in order})
        read.append(logits[np.argsort(order)])
        sequences.close()
    opened.close()
    assert np.array_equal(*read)


def test_what_a_place_holds_of_a_text_is_not_read_again(runtime: Runtime) -> None:
    sequences = runtime.open_sequences(2, 64)
    sequences.feed({1: sequences.begin(1, TEXTS[0])})
    assert [*sequences.begin(1, TEXTS[2])] == TEXTS[2][3:]
    logits = sequences.feed({1: TEXTS[2][3:]})
    assert [*sequences.begin(1, TEXTS[2])] == TEXTS[2][-1:]
    np.testing.assert_allclose(sequences.feed({1: TEXTS[2][-1:]}), logits, atol=1e-3)
    with pytest.raises(ExportError, match="tokens do not fit a context of 64"):
        sequences.feed({1: [5] * 60})
    sequences.close()


def test_long_texts_go_through_in_parts(runtime: Runtime) -> None:
    ids = [5 + index % 200 for index in range(400)]
    sequences = runtime.open_sequences(2, 512)
    rows = sequences.feed({number: sequences.begin(number, ids[number:]) for number in range(2)})
    for number, row in enumerate(rows):
        np.testing.assert_allclose(row, alone(runtime, ids[number:]), atol=1e-3)
    sequences.close()


def test_dialogues_without_data_are_the_same_in_any_batch(teacher: Path, tmp_path: Path) -> None:
    command = ["synthesize", "--self-prompted", 6, "--model", teacher, "--max-new-tokens", 24, "--temperature", 1.3]
    command += ["--top-k", 0, "--top-p", 1, "--set", "question_tokens=24", "--set", "min_question=3"]
    command += ["--max-attempts", 2000]
    for size in (1, 4):
        succeed(*command, "--batch-size", size, "--output", tmp_path / f"{size}.jsonl")
    rows = read_lines(tmp_path / "1.jsonl")
    assert len(rows) == 6 and all(row["finish_reasons"] == ["stop"] for row in rows)
    assert (tmp_path / "4.jsonl").read_bytes() == (tmp_path / "1.jsonl").read_bytes()


def test_a_file_answers_dialogues_too(teacher: Path, tmp_path: Path) -> None:
    source, output = write_lines(tmp_path / "human.jsonl", dialogues(5)), tmp_path / "written.jsonl"
    succeed("synthesize", source, "--output", output, "--model", teacher, "--max-new-tokens", 8, "--batch-size", 3)
    rows = read_lines(output)
    assert sorted(map(questions, rows)) == sorted(map(questions, dialogues(5)))
    assert all(row["settings"]["model"] == str(teacher) for row in rows)
