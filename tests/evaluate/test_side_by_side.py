"""Several contexts read at once give the logits that each gives alone."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from edgerazor.checkpoint import open_checkpoint, pack_model
from edgerazor.core.registry import Registry
from edgerazor.errors import ExportError
from edgerazor.inference.open_runtime import open_runtime
from edgerazor.models.transformers_runtime import TransformersRuntime
from edgerazor.schemas.recipe import load_recipe
from tests.runs import quantization, save_model

CONTEXTS = [[5, 6, 7], [8], [9, 10, 11, 12, 13, 14], [15, 16]]
RESTS: list[tuple[int, list[int]]] = [(0, [20, 21]), (1, []), (2, [22]), (0, [23]), (3, [24, 25, 26]), (0, [20, 27])]


def check(runtime: Any, tolerance: float) -> None:
    found = runtime.score_side_by_side(CONTEXTS, RESTS)
    assert found is not None
    last, following = found

    def alone(ids: list[int], count: int) -> np.ndarray:
        runtime.restart()
        return runtime.feed(ids, every=True)[len(ids) - count :]

    scale = np.abs(last).max()
    for context, logits in zip(CONTEXTS, last, strict=True):
        assert np.abs(logits - alone(context, 1)[0]).max() < tolerance * scale
    for (number, rest), logits in zip(RESTS, following, strict=True):
        assert logits.shape == (len(rest), runtime.vocabulary_size)
        if rest:
            assert np.abs(logits - alone(CONTEXTS[number] + rest, len(rest))).max() < tolerance * scale


@pytest.mark.slow
def test_transformers_reads_contexts_side_by_side(tmp_path: Path) -> None:
    save_model(tmp_path / "model")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "model", dtype=torch.float32)
    check(TransformersRuntime(model, AutoTokenizer.from_pretrained(tmp_path / "model")), 1e-5)


@pytest.mark.slow
def test_a_model_with_a_window_is_read_one_by_one(tmp_path: Path) -> None:
    save_model(tmp_path / "model", use_sliding_window=True, sliding_window=4, max_window_layers=0)
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "model", dtype=torch.float32)
    runtime = TransformersRuntime(model, AutoTokenizer.from_pretrained(tmp_path / "model"))
    assert runtime.score_side_by_side(CONTEXTS, RESTS) is None


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["packed", pytest.param("gguf", marks=pytest.mark.llamacpp)])
def test_a_student_reads_contexts_side_by_side(engine: str, registry: Registry, tmp_path: Path) -> None:
    content = {"model": {"name_or_path": str(save_model(tmp_path / "model"))}, "quantization": quantization()}
    pack_model(load_recipe(content, registry=registry), registry=registry, output=tmp_path / "packed")
    path = tmp_path / "packed"
    if engine == "gguf":
        pytest.importorskip("llama_cpp")
        path = tmp_path / "model.gguf"
        exporter = registry.build(registry.params("exporter", "gguf", path=str(path)))
        exporter.export(open_checkpoint(tmp_path / "packed"), path)
    runtime = open_runtime(path, registry=registry)
    try:
        for _ in range(2):
            check(runtime, 0.05)  # both round activations to 8 bits, of sums in another order
        with pytest.raises(ExportError, match="reads text alone here; videos need"):
            runtime.check_videos()
    finally:
        runtime.close()
