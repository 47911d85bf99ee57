"""What folders in the layout of the Hugging Face hub consist of: shards, configuration, tokenizer."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from edgerazor.core.contracts import Exporter
from edgerazor.errors import ExportError
from edgerazor.plugins.exporters.common import DIGEST
from edgerazor.plugins.exporters.hugging_face import (
    FILES,
    ExportedTensors,
    ShardWriter,
    different_companions,
    write_companions,
)

TENSORS = {f"layer.{number}": torch.arange(16, dtype=torch.int32) + number for number in range(5)}
INNER = {"dtype": "bfloat16", "hidden_size": 8}


@pytest.fixture
def checkpoint(tmp_path: Path) -> Any:
    folder = tmp_path / "checkpoint"
    (folder / "additional_chat_templates").mkdir(parents=True)
    (folder / "additional_chat_templates" / "tools.jinja").write_text("{{ tools }}")
    (folder / "tokenizer.json").write_text("{}")
    config = {"model_type": "llama", "dtype": "float32", "text_config": INNER, "quantization_config": {}}
    return SimpleNamespace(folder=folder, digest="d", recipe={}, config=config)


def write(folder: Path, checkpoint: Any, **options: Any) -> None:
    folder.mkdir()
    with ShardWriter(folder, checkpoint, **options) as shards:
        for name, tensor in TENSORS.items():
            shards.add({name: tensor})


def test_shards_hold_what_one_file_holds(tmp_path: Path, checkpoint: Any) -> None:
    write(tmp_path / "one", checkpoint)
    write(tmp_path / "many", checkpoint, shard_bytes=130)
    assert [path.name for path in (tmp_path / "one").iterdir()] == ["model.safetensors"]
    names = [f"model-0000{number}-of-00003.safetensors" for number in (1, 2, 3)]
    assert sorted(path.name for path in (tmp_path / "many").iterdir()) == [*names, "model.safetensors.index.json"]
    index = json.loads((tmp_path / "many/model.safetensors.index.json").read_text())
    assert index["metadata"]["total_size"] == 5 * 64
    for folder in ("one", "many"):
        exported = ExportedTensors(tmp_path / folder)
        assert exported.digests == {"d"} and exported.headers.keys() == TENSORS.keys()
        assert all(torch.equal(exported.read(name), tensor) for name, tensor in TENSORS.items())
    for name in names:
        held = load_file(tmp_path / "many" / name)
        assert {key for key, file in index["weight_map"].items() if file == name} == held.keys()
        with safe_open(tmp_path / "many" / name, "pt") as opened:
            assert opened.metadata()[DIGEST] == "d" and opened.metadata()["format"] == "pt"


def test_a_tensor_larger_than_a_shard_has_its_own(tmp_path: Path, checkpoint: Any) -> None:
    write(tmp_path / "out", checkpoint, shard_bytes=1)
    assert len(list((tmp_path / "out").glob("model-*-of-00005.safetensors"))) == 5


def test_nothing_is_written_if_the_block_fails(tmp_path: Path, checkpoint: Any) -> None:
    (tmp_path / "out").mkdir()
    with pytest.raises(KeyError), ShardWriter(tmp_path / "out", checkpoint) as shards:
        shards.add(TENSORS)
        raise KeyError
    assert not list((tmp_path / "out").iterdir())


def test_the_configuration_is_the_checkpoints_with_changes(tmp_path: Path, checkpoint: Any) -> None:
    out, changes = tmp_path / "out", {"dtype": "float16", "tie_word_embeddings": False}
    out.mkdir()
    write_companions(out, checkpoint, changes)
    config = json.loads((out / "config.json").read_text())
    assert config == {"model_type": "llama", **changes, "text_config": {**INNER, "dtype": "float16"}}
    assert not list(different_companions(out, checkpoint, changes))
    (out / "tokenizer.json").unlink()
    (out / "additional_chat_templates/tools.jinja").write_text("other")
    (out / "config.json").write_text(json.dumps({**config, "tie_word_embeddings": True, "more": 1}))
    assert list(different_companions(out, checkpoint, changes)) == [
        "config.json: more",
        "config.json: tie_word_embeddings",
        "tokenizer.json",
        "additional_chat_templates/tools.jinja",
    ]


@pytest.mark.parametrize(
    "damage",
    [
        lambda folder: (folder / "model.safetensors").unlink(),
        lambda folder: (folder / "model.safetensors").write_bytes(b"x"),
        lambda folder: (folder / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes()[:-1]),
    ],
)
def test_a_damaged_file_is_one_message(damage: Any, tmp_path: Path, checkpoint: Any) -> None:
    write(tmp_path / "out", checkpoint)
    damage(tmp_path / "out")
    with pytest.raises(ExportError, match=r"model\.safetensors"):
        ExportedTensors(tmp_path / "out")


@pytest.mark.parametrize(("name", "kept"), [("model-00001-of-00002.safetensors", False), ("thesis.tex", True)])
def test_only_a_folder_of_its_files_is_replaced(name: str, kept: bool, tmp_path: Path) -> None:
    class Folders(Exporter):
        files = FILES | {"card.json"}
        plan = write = verify = None

    for file in (name, "card.json", "tokenizer.json"):
        (tmp_path / file).touch()
    exporter = Folders(SimpleNamespace(marker="card.json", marks=lambda names: "card.json" in names))
    if kept:
        with pytest.raises(ExportError, match=r"thesis\.tex"):
            exporter.check_target(tmp_path)
    else:
        exporter.check_target(tmp_path)
