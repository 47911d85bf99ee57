"""What a model is written with can be loaded, pads with a row that is there, and stops at one set of tokens."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoTokenizer

from edgerazor.checkpoint import load_model, pack_model, verify_checkpoint
from edgerazor.core.registry import Registry
from edgerazor.inference.open_runtime import open_runtime
from edgerazor.plugins.exporters.token_ids import stop_ids
from edgerazor.schemas.recipe import Recipe, load_recipe
from edgerazor.training import train
from tests.commands import fail
from tests.runs import recipe, tokenizer

pytestmark = pytest.mark.slow

CHATML = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def read(folder: Path, registry: Registry, **sections: Any) -> Recipe:
    return load_recipe(recipe(folder, training={"max_steps": 2, "save_steps": 1}, **sections), registry=registry)


def change(path: Path, **values: Any) -> None:
    content = json.loads(path.read_text())
    path.write_text(json.dumps({**content, **values}))


def pads_beyond(folder: Path) -> None:
    words = AutoTokenizer.from_pretrained(folder)
    words.add_special_tokens({"pad_token": "<pad>"})
    assert words.pad_token_id == json.loads((folder / "config.json").read_text())["vocab_size"]
    words.save_pretrained(folder)


PADDING: dict[str, Callable[[Path], object]] = {
    "added to the tokenizer alone": pads_beyond,
    "-1": lambda folder: change(folder / "config.json", pad_token_id=-1),
    "the number of rows": lambda folder: change(folder / "config.json", pad_token_id=320),
    "-1 in generation": lambda folder: change(folder / "generation_config.json", pad_token_id=-1),
}


@pytest.mark.parametrize("case", PADDING)
def test_padding_is_a_row_of_the_embedding_in_all_that_is_written(
    tmp_path: Path, registry: Registry, case: str
) -> None:
    """Rows of different lengths are padded; both ways of packing give a folder that loads and pads."""
    loaded = read(tmp_path, registry)
    PADDING[case](tmp_path / "model")
    trained = train(loaded, registry=registry, output=tmp_path / "run").checkpoint
    assert trained is not None
    latent = {"name_or_path": str(tmp_path / "run" / "checkpoints" / "checkpoint-2")}
    again = load_recipe({**loaded.to_dict(), "model": latent}, registry=registry)
    for folder in (trained, pack_model(again, registry=registry, output=tmp_path / "packed").folder):
        assert verify_checkpoint(folder).ok
        model, words = load_model(folder), AutoTokenizer.from_pretrained(folder)
        batch = words(["a", "a longer text"], padding=True, return_tensors="pt")
        assert int(batch["input_ids"].max()) < model.config.vocab_size
        assert bool(torch.isfinite(model(**batch).logits).all())


def test_a_base_model_stops_at_the_end_of_the_turns_it_was_trained_on(tmp_path: Path, registry: Registry) -> None:
    """Its configuration names the end of a text alone; after training on ChatML every reader stops at both."""
    loaded = read(tmp_path, registry)
    words = tokenizer(size=318)
    words.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>"]})
    words.chat_template = CHATML
    words.save_pretrained(tmp_path / "model")
    rows = [
        {"messages": [{"role": "user", "content": f"count {n}"}, {"role": "assistant", "content": f"one {n} two"}]}
        for n in range(40)
    ]
    (tmp_path / "data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    folder = train(loaded, registry=registry, output=tmp_path / "run").checkpoint
    assert folder is not None
    stops = {words.eos_token_id, words.convert_tokens_to_ids("<|im_end|>")}
    assert set(load_model(folder).generation_config.eos_token_id) == stops
    assert set(stop_ids(folder, 320)) == stops
    runtime = open_runtime(folder, registry=registry)
    assert runtime.stop_ids == stops
    runtime.close()


@pytest.mark.parametrize("values", [{"temperature": 0.7}, {"top_p": 0.9, "top_k": 20}])
def test_settings_of_sampling_without_do_sample_are_repaired(
    tmp_path: Path, registry: Registry, caplog: pytest.LogCaptureFixture, values: dict[str, float]
) -> None:
    loaded = read(tmp_path, registry)
    change(tmp_path / "model" / "generation_config.json", **values)
    result = pack_model(loaded, registry=registry, output=tmp_path / "packed")
    assert any(note.startswith("generation_config.json: has settings of sampling") for note in result.notes)
    stored = load_model(result.folder).generation_config
    assert stored.do_sample is True and {key: getattr(stored, key) for key in values} == values
    assert train(loaded, registry=registry, output=tmp_path / "run").checkpoint is not None
    assert any("has settings of sampling" in record.message for record in caplog.records)


def test_configuration_generation_and_tokenizer_state_three_ends_and_all_count(
    tmp_path: Path, registry: Registry
) -> None:
    loaded = read(tmp_path, registry)
    change(tmp_path / "model" / "generation_config.json", eos_token_id=[7, 9])
    change(tmp_path / "model" / "config.json", eos_token_id=8)
    own = AutoTokenizer.from_pretrained(tmp_path / "model").eos_token_id
    folder = pack_model(loaded, registry=registry, output=tmp_path / "packed").folder
    assert load_model(folder).generation_config.eos_token_id == sorted({7, 8, 9, own})
    assert stop_ids(folder, 320) == sorted({7, 8, 9, own})


BROKEN: dict[str, tuple[dict[str, str | None], str]] = {
    "cut off": ({"tokenizer.json": '{"model": '}, "no usable tokenizer"),
    "no JSON at all": ({"tokenizer_config.json": "[]"}, "no usable tokenizer"),
    "vocabulary and merges that are none": (
        {"tokenizer.json": None, "tokenizer_config.json": None, "vocab.json": "{}", "merges.txt": "#"},
        "",
    ),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_tokenizer_that_cannot_be_built_is_one_message(tmp_path: Path, registry: Registry, case: str) -> None:
    read(tmp_path, registry)
    files, expected = BROKEN[case]
    for name, text in files.items():
        path = tmp_path / "model" / name
        path.unlink(missing_ok=True)
        if text is not None:
            path.write_text(text)
    said = fail("pack", tmp_path / "model", "--preset", "4-bit", "--output", tmp_path / "packed")
    assert str(tmp_path / "model") in said and expected in said and len(said.strip().splitlines()) == 1
    assert not (tmp_path / "packed").exists()


def test_a_model_without_any_tokenizer_is_packed_with_a_note(tmp_path: Path, registry: Registry) -> None:
    loaded = read(tmp_path, registry)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (tmp_path / "model" / name).unlink()
    result = pack_model(loaded, registry=registry, output=tmp_path / "packed")
    assert any("has no tokenizer" in note for note in result.notes)
