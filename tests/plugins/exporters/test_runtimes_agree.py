"""Every engine refuses the same things by the same error: the runtimes, and the contract that they share."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from edgerazor.checkpoint import open_checkpoint
from edgerazor.core.contracts import Runtime
from edgerazor.core.contracts.runtime import OneSequence
from edgerazor.core.registry import Registry
from edgerazor.errors import ExportError
from edgerazor.inference.open_runtime import open_runtime

FOLDER = Path(__file__).parents[2] / "fixtures" / "version_0_1"


def model_of(engine: str, registry: Registry, folder: Path) -> Path:
    """A model without a chat template for an engine; its context holds 128 tokens."""
    packed = FOLDER / "qwen3-int4-tied" / "packed"
    if engine == "transformers":
        return packed
    if engine == "onnx":
        pytest.importorskip("onnxruntime")
        shutil.copytree(FOLDER / "qwen3-mixed-rows-untied" / "onnx", folder / "onnx")
        (folder / "onnx" / "chat_template.jinja").unlink()
        return folder / "onnx"
    pytest.importorskip({"compressed-tensors": "compressed_tensors", "gguf": "llama_cpp", "mlx": "mlx_lm"}[engine])
    path = folder / f"model.{engine}"
    registry.build(registry.params("exporter", engine, path=str(path))).export(open_checkpoint(packed), path)
    return path


ENGINES = [
    "transformers",
    "onnx",
    "compressed-tensors",
    pytest.param("gguf", marks=pytest.mark.llamacpp),
    pytest.param("mlx", marks=pytest.mark.mlx),
]


@pytest.fixture(params=ENGINES)
def runtime(request: pytest.FixtureRequest, registry: Registry, tmp_path: Path) -> Iterator[Runtime]:
    opened = open_runtime(model_of(request.param, registry, tmp_path), registry=registry)
    yield opened
    opened.close()


def test_what_does_not_fit_is_one_error(runtime: Runtime) -> None:
    assert isinstance(runtime, Runtime) and runtime.context_length == 128
    with pytest.raises(ExportError, match=r": 129 tokens do not fit a context of 128$"):
        runtime.feed([1] * 129)
    runtime.feed([1] * 100)
    with pytest.raises(ExportError, match=r": 129 tokens do not fit a context of 128$"):
        runtime.feed([1] * 29)
    assert runtime.position == 100  # a refusal feeds nothing
    runtime.restart()
    assert runtime.feed([1] * 29).shape == (1, runtime.vocabulary_size)


def test_a_missing_chat_template_is_one_error(runtime: Runtime) -> None:
    with pytest.raises(ExportError, match=r": has no chat template; leave --chat out$"):
        runtime.encode("the fox", chat=True)
    assert runtime.encode("the fox") == runtime.encode("the fox", chat=False)


def test_what_two_texts_begin_with_is_read_once(runtime: Runtime) -> None:
    first = list(range(3, 53))
    second = [*first[:40], 60, 61, 62]
    expected = runtime.feed(second)[0]
    runtime.restart()
    sequences = runtime.open_sequences(1, 128)
    if isinstance(sequences, OneSequence):
        assert list(sequences.begin(0, first)) == first
        sequences.feed({0: first})
        assert (
            list(sequences.begin(0, second)) == second
        )  # only who asks for it has rounding that depends on earlier texts
        sequences.keeps = True
    other = sequences.feed({0: sequences.begin(0, first)})[0]
    left = sequences.begin(0, second)
    can = type(runtime).rewind is not Runtime.rewind or not isinstance(sequences, OneSequence)
    assert list(left) == (second[40:] if can else second)
    # Products of int8 inputs round otherwise where fewer tokens go through together.
    assert np.abs(sequences.feed({0: left})[0] - expected).max() < 0.25
    assert np.abs(other - expected).max() > 1
    # The same text again: its last token is read.
    assert len(sequences.begin(0, second)) == (1 if can else len(second))
    sequences.close()
