"""Models behind the one interface: what is fed, found and written does not depend on how it is cut into pieces."""

from collections.abc import Callable
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from edgerazor.core.registry import Component, Registry
from edgerazor.data import load_data
from edgerazor.errors import CheckpointError, EdgeRazorError, ExportError, PluginError
from edgerazor.evaluate.checkpoints import evaluate_model
from edgerazor.evaluate.exported import evaluate_runtime
from edgerazor.inference.generate import GenerationSettings, generate_text
from edgerazor.inference.open_runtime import exporter_of, open_runtime
from edgerazor.models.transformers_runtime import TransformersRuntime
from edgerazor.schemas.components import ExporterParams
from edgerazor.schemas.data import DataSection
from tests.runs import save_data, tokenizer

Build = Callable[..., torch.nn.Module]


@pytest.fixture
def runtime(build_model: Build) -> TransformersRuntime:
    return TransformersRuntime(build_model(seed=1, vocab_size=320), tokenizer())


@given(cuts=st.lists(st.integers(1, 5), min_size=1, max_size=5), every=st.booleans())
def test_pieces_give_the_logits_of_the_whole(cuts: list[int], every: bool) -> None:
    from transformers import Qwen3Config, Qwen3ForCausalLM

    torch.manual_seed(0)
    config = Qwen3Config(vocab_size=320, hidden_size=32, intermediate_size=32, num_hidden_layers=2, head_dim=16)
    runtime = TransformersRuntime(Qwen3ForCausalLM(config), tokenizer())
    ids = torch.randint(0, 300, (sum(cuts),), generator=torch.Generator().manual_seed(0)).tolist()
    whole = runtime.feed(ids, every=True)
    runtime.restart()
    position = 0
    for cut in cuts:
        found = runtime.feed(ids[position : position + cut], every=every)
        expected = whole[position : position + cut] if every else whole[position + cut - 1 : position + cut]
        np.testing.assert_allclose(found, expected, atol=2e-5)
        position += cut


def test_greedy_text_is_what_transformers_writes(runtime: TransformersRuntime, build_model: Build) -> None:
    model, words = build_model(seed=1, vocab_size=320), tokenizer()
    prompt = "def f1(x):\n"
    ids = torch.tensor([words(prompt)["input_ids"]])
    expected = model.generate(ids, max_new_tokens=20, do_sample=False, eos_token_id=words.eos_token_id)  # type: ignore[operator]
    pieces: list[str] = []
    text = generate_text(runtime, prompt, GenerationSettings(20), on_text=pieces.append)
    assert text == words.decode(expected[0, ids.shape[1] :], skip_special_tokens=True)
    assert "".join(pieces) == text


def test_sampling_repeats_for_a_seed(runtime: TransformersRuntime) -> None:
    def write(seed: int) -> str:
        return generate_text(runtime, "def", GenerationSettings(12, temperature=1.5, seed=seed))

    assert write(3) == write(3)
    assert len({write(seed) for seed in range(4)}) > 1


def test_text_ends_at_a_stop_token_and_at_the_end_of_the_context(runtime: TransformersRuntime) -> None:
    prompt = "def f"
    start = runtime.encode(prompt)
    first = int(runtime.feed(start)[0].argmax())
    runtime.context_length = len(start) + 3
    longest = generate_text(runtime, prompt, GenerationSettings(50))
    assert longest == generate_text(runtime, prompt, GenerationSettings(4))
    assert longest != generate_text(runtime, prompt, GenerationSettings(3))
    runtime.stop_ids = frozenset({first})
    assert generate_text(runtime, prompt, GenerationSettings(50)) == ""


def test_what_cannot_be_fed_is_an_error(runtime: TransformersRuntime) -> None:
    with pytest.raises(ExportError, match="200 tokens do not fit a context of 64"):
        runtime.feed([1] * 200)
    with pytest.raises(EdgeRazorError, match="write at least one word"):
        generate_text(runtime, "")
    with pytest.raises(ExportError, match="no chat template"):
        generate_text(runtime, "x", GenerationSettings(chat=True))


@pytest.mark.slow
def test_figures_are_those_of_the_model_in_torch(build_model: Build, registry: Registry, tmp_path: Path) -> None:
    section = DataSection(sources=[{"path": str(save_data(tmp_path / "data.jsonl"))}], sequence_length=48)  # type: ignore[list-item]
    data = load_data(section, tokenizer()).train
    student, teacher = build_model(seed=1, vocab_size=320), build_model(seed=2, vocab_size=320)
    expected = evaluate_model(student, teacher, data, adapter=registry.adapter_for("qwen3"))
    engines = [TransformersRuntime(model, tokenizer()) for model in (student, teacher)]
    found = evaluate_runtime(engines[0], engines[1], data)
    assert found.tokens == expected.tokens
    for name in ("loss", "bits_per_byte", "kl_teacher", "top1_agreement"):
        assert getattr(found, name) == pytest.approx(getattr(expected, name), rel=1e-4), name
    assert evaluate_runtime(engines[0], None, data, rows=1).kl_teacher is None


def test_what_is_no_model_is_named(registry: Registry, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(ExportError, match="no exporter knows this kind of file; there are: compressed-tensors, gguf"):
        exporter_of(tmp_path / "notes.txt", registry)
    with pytest.raises(ExportError, match="no exporter knows this kind of file"):
        open_runtime(tmp_path / "notes.txt", registry=registry)
    with pytest.raises(CheckpointError, match="there is no such folder; expected a packed checkpoint or an exported"):
        open_runtime(tmp_path / "absent", registry=registry)
    with pytest.raises(ExportError, match="there is no such file"):
        open_runtime(tmp_path / "absent.gguf", registry=registry)


class OtherParams(ExporterParams):
    """An exporter whose engine is something else."""

    target: ClassVar[str] = "pathlib:Path"
    suffixes: ClassVar[tuple[str, ...]] = (".other",)
    runtime: ClassVar[str] = "pathlib:Path"
    name: Literal["other"] = "other"


def test_an_engine_that_is_no_runtime_is_named(tmp_path: Path) -> None:
    (tmp_path / "model.other").touch()
    registry = Registry({("exporter", "other"): Component(OtherParams, "", __name__)}, [])
    with pytest.raises(PluginError, match=r"exporter 'other': pathlib:Path gives no Runtime"):
        open_runtime(tmp_path / "model.other", registry=registry)
