"""Exported models are measured on what their recipe holds out, with its teacher at its revision and its tokenizer."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, Literal

import pytest
import torch
from transformers import AutoTokenizer

from edgerazor.checkpoint import load_model, open_checkpoint, pack_model
from edgerazor.core.registry import Component, Registry
from edgerazor.errors import CheckpointError, DataError, PlanError
from edgerazor.evaluate.checkpoints import evaluate_checkpoint
from edgerazor.evaluate.exported import evaluate_exported
from edgerazor.export.export import export_to
from edgerazor.models.transformers_runtime import TransformersRuntime
from edgerazor.plugins.exporters.common import RECIPE
from edgerazor.schemas.components import ExporterParams
from edgerazor.schemas.data import DataSection
from edgerazor.schemas.recipe import load_recipe
from tests.hub import offline_cache
from tests.runs import LINES, quantization, save_data, save_model

pytestmark = pytest.mark.slow

MARKER = "exported.other"


class OtherEngine(TransformersRuntime):
    """Runs folders that a third party exports: packed checkpoints with one more file."""

    def __init__(self, path: Path):
        model = load_model(path, dtype=torch.float32)
        super().__init__(model, AutoTokenizer.from_pretrained(path), open_checkpoint(path).recipe)


class OtherParams(ExporterParams):
    """A third party's exporter."""

    target: ClassVar[str] = "pathlib:Path"
    marker: ClassVar[str] = MARKER
    runtime: ClassVar[str] = f"{__name__}:OtherEngine"
    name: Literal["other"] = "other"


@pytest.fixture
def with_other(registry: Registry) -> Registry:
    """The built-in components and the exporter above."""
    components = {
        (kind, name): Component(registry.declared(kind, name), "edgerazor", "edgerazor")
        for kind in ("adapter", "quantizer")
        for name in registry.names(kind)
    }
    return Registry({**components, ("exporter", "other"): Component(OtherParams, "", __name__)}, registry.plugins)


@pytest.fixture
def make(tmp_path: Path, registry: Registry) -> Any:
    """`make(model, data)`: a packed checkpoint by a recipe of these sections, and the same exported."""

    def make(model: dict[str, Any] | None = None, data: dict[str, Any] | None = None) -> tuple[Path, Path]:
        content: dict[str, Any] = {"model": model or {"name_or_path": str(save_model(tmp_path / "model"))}}
        if data is not None:
            source = str(save_data(tmp_path / "data.jsonl", LINES[:20]))
            content["data"] = {"sources": [source], "sequence_length": 48, **data}
        packed, exported = tmp_path / "packed", tmp_path / "exported"
        recipe = load_recipe({**content, "quantization": quantization()}, registry=registry)
        pack_model(recipe, registry=registry, output=packed)
        shutil.copytree(packed, exported)
        (exported / MARKER).touch()
        return packed, exported

    return make


def test_a_recipe_that_holds_nothing_out_is_not_measured_on_what_was_trained_on(
    make: Any, with_other: Registry
) -> None:
    packed, exported = make(data={})
    for evaluate, path in ((evaluate_exported, exported), (evaluate_checkpoint, packed)):
        with pytest.raises(DataError, match=rf"{path}: its recipe holds out no data \(data\.held_out\); give a file"):
            evaluate(path, registry=with_other)  # type: ignore[operator]


def test_a_recipe_without_data_asks_for_a_file(make: Any, with_other: Registry) -> None:
    with pytest.raises(DataError, match="its recipe has no data section; give a file to evaluate on with --data"):
        evaluate_exported(make()[1], registry=with_other)


def test_an_export_is_measured_on_the_rows_that_its_checkpoint_is_measured_on(make: Any, with_other: Registry) -> None:
    packed, exported = make(data={"held_out": 0.2})
    found, expected = (
        evaluate_exported(exported, registry=with_other),
        evaluate_checkpoint(packed, registry=with_other),
    )
    assert found.tokens == expected.tokens
    assert found.loss == pytest.approx(expected.loss, rel=1e-3)
    assert found.teacher_loss == pytest.approx(expected.teacher_loss, rel=1e-4)
    assert found.kl_teacher == pytest.approx(expected.kl_teacher, rel=1e-2)


@pytest.mark.llamacpp
def test_a_file_of_another_tool_is_measured_on_data_and_beside_a_teacher_that_are_given(
    make: Any, registry: Registry, tmp_path: Path
) -> None:
    pytest.importorskip("llama_cpp")
    packed, ours, theirs = make(data={"held_out": 0.2})[0], tmp_path / "ours.gguf", tmp_path / "theirs.gguf"
    export_to(packed, "gguf", ours, registry=registry)
    content = ours.read_bytes()
    assert content.count(RECIPE.encode()) == 1
    theirs.write_bytes(content.replace(RECIPE.encode(), b"x" * len(RECIPE)))
    given = DataSection.model_validate({"sources": [str(tmp_path / "data.jsonl")], "sequence_length": 48})
    for data, teacher in ((None, None), (given, None), (None, str(tmp_path / "model"))):
        with pytest.raises(DataError, match=r"theirs\.gguf: holds no recipe.* --data, and its 16-bit model with --te"):
            evaluate_exported(theirs, registry=registry, data=data, teacher=teacher)
    found = evaluate_exported(theirs, registry=registry, data=given, teacher=str(tmp_path / "model"))
    expected = evaluate_exported(ours, registry=registry, data=given)
    assert replace(found, tokens_per_second=None) == replace(expected, tokens_per_second=None)


def test_the_tokenizer_of_the_recipe_reads_the_data(make: Any, with_other: Registry, tmp_path: Path) -> None:
    words = save_model(tmp_path / "words")
    teacher = save_model(tmp_path / "teacher", seed=1)
    for file in teacher.glob("tokenizer*"):
        file.unlink()
    model = {"name_or_path": str(words), "teacher": str(teacher), "tokenizer": str(words)}
    exported = make(model=model, data={"held_out": 0.2})[1]
    assert evaluate_exported(exported, registry=with_other).tokens > 0
    # A teacher that somebody names on the spot reads the data itself.
    shutil.copytree(teacher, tmp_path / "without words")
    with pytest.raises(PlanError, match="without words: its tokenizer splits text otherwise than the one of"):
        evaluate_exported(exported, registry=with_other, teacher=str(tmp_path / "without words"))


def test_the_teacher_is_read_at_the_revision_of_the_recipe(
    make: Any, with_other: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = offline_cache(tmp_path / "cache", monkeypatch)
    cache("somebody/tiny", "v1", save_model(tmp_path / "first"))
    cache("somebody/tiny", "main", save_model(tmp_path / "second", seed=1))
    packed, exported = make(model={"name_or_path": "somebody/tiny", "revision": "v1"}, data={"held_out": 0.2})
    first = evaluate_exported(exported, registry=with_other, teacher=str(tmp_path / "first"))
    assert evaluate_exported(exported, registry=with_other) == first
    second = evaluate_exported(exported, registry=with_other, teacher=str(tmp_path / "second"))
    assert second.kl_teacher != first.kl_teacher
    assert evaluate_checkpoint(packed, registry=with_other).kl_teacher == pytest.approx(first.kl_teacher, rel=1e-2)


def test_a_teacher_that_does_not_fit_is_refused_before_its_weights_are_loaded(
    make: Any, with_other: Registry, tmp_path: Path
) -> None:
    exported = make(data={"held_out": 0.2})[1]
    other = save_model(tmp_path / "other", vocabulary=400)
    (other / "model.safetensors").unlink()
    with pytest.raises(PlanError, match="other: has a vocabulary of 400 tokens, the checkpoint 320"):
        evaluate_exported(exported, registry=with_other, teacher=str(other))


def test_a_recipe_does_not_lead_into_its_export(make: Any, with_other: Registry, tmp_path: Path) -> None:
    model = {"name_or_path": str(save_model(tmp_path / "model")), "teacher": str(tmp_path / "exported" / "teacher")}
    exported = make(model=model, data={"held_out": 0.2})[1]
    save_model(exported / "teacher")
    with pytest.raises(CheckpointError, match="lies inside the checkpoint"):
        evaluate_exported(exported, registry=with_other)


def test_data_that_was_given_is_read_whole(make: Any, with_other: Registry, tmp_path: Path) -> None:
    packed, exported = make(data={})
    section = DataSection(sources=[{"path": str(save_data(tmp_path / "own.jsonl", LINES[:4]))}], sequence_length=48)  # type: ignore[list-item]
    found = evaluate_exported(exported, registry=with_other, data=section)
    assert found.tokens == evaluate_checkpoint(packed, registry=with_other, data=section).tokens > 0
