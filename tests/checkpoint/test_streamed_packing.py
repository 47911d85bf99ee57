"""A model on disk is packed matrix by matrix to the same bytes as one in memory, and what does not fit is loaded."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from edgerazor.checkpoint import pack_model
from edgerazor.core.registry import Registry
from edgerazor.core.tensor_spool import TensorSpool
from edgerazor.errors import CheckpointError
from edgerazor.models.load import Models
from edgerazor.models.source import ModelSource
from edgerazor.schemas.recipe import load_recipe
from tests.limits import quota
from tests.runs import recipe, save_model

pytestmark = pytest.mark.slow

DTYPES = [
    torch.uint32,
    torch.uint8,
    torch.int8,
    torch.bool,
    torch.float16,
    torch.bfloat16,
    torch.int16,
    torch.float32,
    torch.int32,
]


def test_a_spool_writes_what_safetensors_would(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    tensors = {
        f"{name}.{index}é": torch.randint(0, 2, shape, generator=generator).to(dtype)
        for index, dtype in enumerate([*DTYPES, torch.int64, torch.float64])
        for name, shape in (("z", (3, 5)), ("a", (7,)), ("one", ()), ("none", (0, 4)))
    }
    with TensorSpool(tmp_path) as spool:
        for name, tensor in tensors.items():
            spool.add({name: tensor})
        spool.save(tmp_path / "ours.safetensors")
    save_file(tensors, tmp_path / "theirs.safetensors", metadata={"format": "pt"})
    assert (tmp_path / "ours.safetensors").read_bytes() == (tmp_path / "theirs.safetensors").read_bytes()


def shard(model: Path) -> None:
    """The weights in three files with an index, as large models have them."""
    tensors = load_file(model / "model.safetensors")
    places = {name: f"model-{index % 3}.safetensors" for index, name in enumerate(sorted(tensors))}
    for file in set(places.values()):
        save_file({name: tensors[name] for name in places if places[name] == file}, model / file, {"format": "pt"})
    (model / "model.safetensors").unlink()
    (model / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": places}))


@pytest.mark.slow
@pytest.mark.parametrize("values", [{}, {"tie_word_embeddings": False}, {"attention_bias": True}])
@pytest.mark.parametrize("shards", [False, True])
def test_the_files_are_those_of_a_model_in_memory(
    values: dict[str, Any], shards: bool, tmp_path: Path, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = recipe(tmp_path)
    save_model(tmp_path / "model", **values)
    if shards:
        shard(tmp_path / "model")
    loaded = load_recipe(content, registry=registry)
    assert Models(loaded.model, registry).student.load_unread() is not None
    pack_model(loaded, registry=registry, output=tmp_path / "streamed")
    monkeypatch.setattr(ModelSource, "load_unread", lambda source: None)
    pack_model(loaded, registry=registry, output=tmp_path / "whole")
    names = {path.name for path in (tmp_path / "whole").iterdir()}
    assert names == {path.name for path in (tmp_path / "streamed").iterdir()}
    for name in names:
        assert (tmp_path / "streamed" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name


def test_a_value_that_is_not_finite_is_named_and_nothing_is_left(tmp_path: Path, registry: Registry) -> None:
    loaded = load_recipe(recipe(tmp_path), registry=registry)
    path = tmp_path / "model" / "model.safetensors"
    for name in ("model.layers.1.mlp.up_proj.weight", "model.norm.weight"):
        before = load_file(path)
        damaged = {key: value.clone() for key, value in before.items()}
        damaged[name].view(-1)[3] = float("nan")
        save_file(damaged, path, {"format": "pt"})
        with pytest.raises(CheckpointError, match=f"{name} holds NaN or infinite values"):
            pack_model(loaded, registry=registry, output=tmp_path / "packed")
        assert not (tmp_path / "packed").exists() and not list(tmp_path.glob(".*"))
        save_file(before, path, {"format": "pt"})


def test_a_full_disk_while_packing_is_said_and_nothing_is_left(tmp_path: Path, registry: Registry) -> None:
    loaded = load_recipe(recipe(tmp_path), registry=registry)
    with quota(10_000), pytest.raises(CheckpointError, match="packed: cannot be written: File too large"):
        pack_model(loaded, registry=registry, output=tmp_path / "packed")
    assert not (tmp_path / "packed").exists() and not list(tmp_path.glob(".*"))
