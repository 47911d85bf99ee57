"""Folders for vLLM and Transformers: shards, settings, and what is said of those that were damaged or changed."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("compressed_tensors")

from compressed_tensors_cases import IDS, OneLayer, export

from edgerazor.core.registry import Registry
from edgerazor.errors import ExportError
from edgerazor.export.export import build_exporter, verify_export
from edgerazor.inference.open_runtime import open_runtime
from edgerazor.plugins.exporters.compressed_tensors.write import write_folder
from edgerazor.plugins.exporters.params import CompressedTensorsParams
from edgerazor.testing import check_exporter

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def checkpoints(registry: Registry, tmp_path_factory: pytest.TempPathFactory) -> OneLayer:
    return OneLayer(registry, tmp_path_factory)


def test_shards_are_read_as_one_file(checkpoints: OneLayer, tmp_path: Path) -> None:
    checkpoint = checkpoints("1.88-bit")
    params = CompressedTensorsParams(path="out")
    exporter = checkpoint.registry.build(params)
    write_folder(
        tmp_path / "out", checkpoint, exporter.planned(checkpoint), params, lambda *_: None, shard_bytes=100_000
    )
    assert len(list((tmp_path / "out").glob("model-*-of-*.safetensors"))) > 3
    assert exporter.verify(tmp_path / "out", checkpoint).different == ()
    runtime = open_runtime(tmp_path / "out", registry=checkpoint.registry)
    assert runtime.feed(IDS).shape == (1, 320)
    runtime.close()


def test_the_laws_of_exporters(registry: Registry) -> None:
    check_exporter(CompressedTensorsParams(path="out"), registry=registry)


def test_every_parameter_is_known_again(checkpoints: OneLayer, tmp_path: Path) -> None:
    checkpoint = checkpoints("1.58-bit")
    settings = {"profile": "w2", "embedding": "keep", "untie": "false", "activations": "none", "dtype": "float16"}
    assert settings.keys() == CompressedTensorsParams.model_fields.keys() - {"name", "path"}
    export(checkpoint, tmp_path / "out", *(f"{name}={value}" for name, value in settings.items()))
    assert verify_export(tmp_path / "out", checkpoint.folder, registry=checkpoint.registry).different == ()


def edit(path: Path, name: str, change: Any) -> None:
    content = json.loads((path / name).read_text())
    change(content)
    (path / name).write_text(json.dumps(content))


def widen(config: dict[str, Any]) -> None:
    for group in config["quantization_config"]["config_groups"].values():
        group["weights"]["num_bits"] = 8


DAMAGE: dict[str, tuple[Any, str]] = {
    "no weights": (lambda path: (path / "model.safetensors").unlink(), "is missing"),
    "cut off": (lambda path: os.truncate(path / "model.safetensors", 9000), "cut off"),
    "no configuration": (lambda path: (path / "config.json").unlink(), "config.json"),
    "broken configuration": (lambda path: (path / "config.json").write_text("{"), "config.json"),
    "no section": (
        lambda path: edit(path, "config.json", lambda c: c.pop("quantization_config")),
        "quantization_config",
    ),
    "no number": (
        lambda path: edit(path, "config.json", lambda c: c["quantization_config"].update(config_groups=3)),
        "quantization_config: cannot be read",
    ),
    "broken card": (lambda path: (path / "edgerazor_compressed_tensors.json").write_text("[]"), "edgerazor_compressed"),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_a_damaged_folder_is_one_message(name: str, checkpoints: OneLayer, tmp_path: Path) -> None:
    checkpoint = checkpoints("4-bit")
    export(checkpoint, tmp_path / "out")
    damage, expected = DAMAGE[name]
    damage(tmp_path / "out")
    with pytest.raises(ExportError, match=expected) as caught:
        verify_export(tmp_path / "out", checkpoint.folder, registry=checkpoint.registry)
    assert str(tmp_path / "out") in str(caught.value) and "\n" not in str(caught.value)
    with pytest.raises(ExportError) as caught:
        open_runtime(tmp_path / "out", registry=checkpoint.registry)
    assert str(tmp_path / "out") in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (widen, "lm_head"),
        (lambda config: config.update(tie_word_embeddings=True), "config.json: tie_word_embeddings"),
        (lambda config: config["quantization_config"]["ignore"].append("x"), "config.json: quantization_config"),
    ],
)
def test_a_changed_configuration_is_found(change: Any, expected: str, checkpoints: OneLayer, tmp_path: Path) -> None:
    checkpoint = checkpoints("4-bit")
    exporter = build_exporter("compressed-tensors", tmp_path / "out", (), checkpoint.registry)
    exporter.export(checkpoint, tmp_path / "out")
    edit(tmp_path / "out", "config.json", change)
    different = exporter.verify(tmp_path / "out", checkpoint).different
    assert expected in different or (expected == "lm_head" and "model.embed_tokens.weight" in different)
