"""A GGUF file runs where nothing could be compiled."""

from pathlib import Path

import pytest

from edgerazor.core.registry import Registry
from edgerazor.errors import ExportError
from edgerazor.export.export import export_to
from edgerazor.inference.generate import GenerationSettings, generate
from edgerazor.quickstart.prebuilt_llamacpp import write_text
from edgerazor.schemas.recipe import load_recipe
from tests.runs import save_model

pytest.importorskip("xllamacpp")


def test_it_writes_what_transformers_writes(registry: Registry, tmp_path: Path) -> None:
    from edgerazor.checkpoint import pack_model

    rules = [{"match": "*", "quantizer": {"name": "int", "bits": 4, "group_size": 32}}]
    raw = {"model": {"name_or_path": str(save_model(tmp_path / "model"))}, "quantization": {"weights": rules}}
    pack_model(load_recipe(raw, registry=registry), registry=registry, output=tmp_path / "packed")
    export_to(tmp_path / "packed", "gguf", tmp_path / "model.gguf", registry=registry)
    engine, text = write_text(tmp_path / "model.gguf", "def load", 8) or ("", "")
    expected = generate(tmp_path / "packed", "def load", GenerationSettings(8), registry=registry)
    assert engine.startswith("llama.cpp (xllamacpp ") and text and expected.startswith(text[:3])


def test_a_file_that_is_none_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "model.gguf").write_bytes(b"GGUF" + bytes(64))
    with pytest.raises(ExportError, match=r"model\.gguf: xllamacpp cannot run it: "):
        write_text(tmp_path / "model.gguf", "x", 1)
