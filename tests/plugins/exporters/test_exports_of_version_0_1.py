"""Checkpoints of version 0.1 give the files that version 0.1 exported, byte by byte."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("gguf")
pytest.importorskip("onnx_ir")

from export_contents import describe_gguf, describe_onnx, without_names_of_the_tracer

from edgerazor.checkpoint import open_checkpoint
from edgerazor.core.registry import Registry
from edgerazor.inference.open_runtime import open_runtime
from edgerazor.plugins.exporters.token_ids import stop_ids
from tests.commands import fail, succeed

FOLDER = Path(__file__).parents[2] / "fixtures" / "version_0_1"
EXPECTED: dict[str, dict[str, Any]] = {
    path.parent.name: json.loads(path.read_text()) for path in sorted(FOLDER.glob("*/expected.json"))
}
GGUF = [(name, profile) for name, content in EXPECTED.items() for profile in content["gguf"]]
ONNX = [(name, case) for name, content in EXPECTED.items() for case in content["onnx"]]


def test_there_is_something_to_compare() -> None:
    assert len(GGUF) == 12 and len(ONNX) == 7


@pytest.mark.parametrize(("name", "profile"), GGUF)
def test_gguf_files_are_the_same(name: str, profile: str, registry: Registry, tmp_path: Path) -> None:
    path, checkpoint = tmp_path / "model.gguf", open_checkpoint(FOLDER / name / "packed", registry=registry)
    registry.build(registry.params("exporter", "gguf", path=str(path), profile=profile)).export(checkpoint, path)
    assert describe_gguf(path) == EXPECTED[name]["gguf"][profile]


def restore_end_of_text(folder: Path) -> None:
    """Version 0.1 told onnxruntime-genai to end at token 0 where config.json names no end; now the tokenizer does."""
    path = folder / "genai_config.json"
    (end,) = stop_ids(folder, json.loads(path.read_text())["model"]["vocab_size"])
    path.write_text(path.read_text().replace(f'_token_id": {end},', '_token_id": 0,'))


@pytest.mark.slow
@pytest.mark.parametrize(("name", "case"), ONNX)
def test_onnx_folders_are_the_same(name: str, case: str, registry: Registry, tmp_path: Path) -> None:
    """Graph and names of constants too, where the packages that trace the model are those of then."""
    before = dict(EXPECTED[name]["onnx"][case])
    path, checkpoint = tmp_path / "model", open_checkpoint(FOLDER / name / "packed", registry=registry)
    exporter = registry.build(registry.params("exporter", "onnx", path=str(path), **before.pop("settings")))
    exporter.export(checkpoint, path)
    if checkpoint.config.get("eos_token_id") is None:
        restore_end_of_text(path)
    now = describe_onnx(path)
    if now["traced_by"] == before["traced_by"]:
        assert now == before
    else:
        assert without_names_of_the_tracer(now) == without_names_of_the_tracer(before)


@pytest.mark.slow
def test_an_onnx_folder_of_then_is_known_run_and_replaced(registry: Registry, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    packed, path = FOLDER / "qwen3-mixed-rows-untied" / "packed", tmp_path / "onnx"
    shutil.copytree(packed.parent / "onnx", path)
    assert "--against CHECKPOINT" in fail("verify", path)
    assert "equal" in succeed("verify", path, "--against", packed)
    runtime = open_runtime(path, registry=registry)
    assert runtime.recipe and runtime.feed(runtime.encode("the fox")).shape == (1, runtime.vocabulary_size)
    runtime.close()
    registry.build(registry.params("exporter", "onnx", path=str(path))).export(open_checkpoint(packed), path)
    assert not (path / "edgerazor.json").exists()
    assert "equal" in succeed("verify", path, "--against", packed)
