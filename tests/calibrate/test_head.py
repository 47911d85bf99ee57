"""The output head is rounded on what it is given, and layers make up for the embedding as it will be."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM

from edgerazor.calibrate import pack_calibrated, round_head
from edgerazor.calibrate.decoder import Decoder
from edgerazor.calibrate.journal import Journal
from edgerazor.calibrate.pack import calibration_rows
from edgerazor.calibrate.walk import round_layers
from edgerazor.checkpoint import load_model
from edgerazor.core.apply import apply_plan
from edgerazor.core.plan import build_plan
from edgerazor.core.registry import Registry
from edgerazor.models.load import Models
from edgerazor.schemas.recipe import Recipe, load_recipe
from tests.calibrate.layer_cases import FLOAT32, StoppedError, recipe_of, stop_at, texts
from tests.families import family_model
from tests.plugins.quantizer_cases import build
from tests.runs import save_data, save_model, tokenizer

pytestmark = pytest.mark.slow


def calibrated(folder: Path, registry: Registry, tied: bool) -> tuple[Recipe, Any]:
    """Recipe and packed model of two layers, every matrix rounded on four texts; `folder` then holds all of it."""
    save_model(folder / "model", num_hidden_layers=2, tie_word_embeddings=tied)
    save_data(folder / "data.jsonl")
    recipe = recipe_of(folder / "model", registry, "*")
    given: dict[str, Any] = {"data": texts(folder), "samples": 4, "processor": FLOAT32}
    pack_calibrated(recipe, registry=registry, output=folder / "out", **given)
    return recipe, load_model(folder / "out", dtype=torch.float32, registry=registry)


@pytest.mark.parametrize("tied", [True, False])
@torch.no_grad()
def test_the_head_is_rounded_on_what_it_is_given(tied: bool, registry: Registry, tmp_path: Path) -> None:
    recipe, packed = calibrated(tmp_path, registry, tied)
    plain: Any = AutoModelForCausalLM.from_pretrained(tmp_path / "model", dtype=torch.float32)
    rows = calibration_rows(Models(recipe.model, registry).student, texts(tmp_path), 4)
    states = torch.cat([packed.model(input_ids=row)[0][0] for row in rows])
    owner = packed.model.embed_tokens if tied else packed.lm_head
    weight, found = plain.lm_head.weight, owner.quantized().dequantize(torch.float32)
    rounded = build("int", bits=3, group_size=32).quantize(weight).dequantize(torch.float32)
    assert ((found - weight) @ states.T).norm() < 0.9 * ((rounded - weight) @ states.T).norm()


@torch.no_grad()
def test_a_tied_head_of_eight_bits_is_rounded_as_it_is_and_layers_make_up_for_it(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No pass through the 16-bit model looks for its inputs."""
    save_model(tmp_path / "model", num_hidden_layers=2, tie_word_embeddings=True)
    save_data(tmp_path / "data.jsonl")
    embedding = {"name": "int", "bits": 8, "group_size": 32}
    rules = [
        {"match": ["*.embed_tokens", "lm_head"], "quantizer": embedding},
        {"match": "*", "quantizer": embedding | {"bits": 3}},
    ]
    raw = {"model": {"name_or_path": str(tmp_path / "model")}, "quantization": {"weights": rules}}
    given: dict[str, Any] = {"data": texts(tmp_path), "samples": 4, "processor": FLOAT32}
    recipe = load_recipe(raw, registry=registry)
    monkeypatch.setattr(Decoder, "head_moments", None)
    pack_calibrated(recipe, registry=registry, output=tmp_path / "out", **given)
    packed: Any = load_model(tmp_path / "out", dtype=torch.float32, registry=registry)
    plain: Any = AutoModelForCausalLM.from_pretrained(tmp_path / "model", dtype=torch.float32)
    found = packed.model.embed_tokens.quantized()
    expected = build("int", bits=8, group_size=32).quantize(plain.lm_head.weight)
    assert torch.equal(found.codes, expected.codes) and torch.equal(found.scale, expected.scale)
    matrix = packed.model.layers[0].self_attn.q_proj.quantized()
    rounded = build("int", bits=3, group_size=32).quantize(plain.model.layers[0].self_attn.q_proj.weight)
    assert not torch.equal(matrix.codes, rounded.codes)


@pytest.mark.parametrize("tied", [True, False])
@torch.no_grad()
def test_layers_make_up_for_the_embedding_as_it_will_be(tied: bool, registry: Registry, tmp_path: Path) -> None:
    recipe, packed = calibrated(tmp_path, registry, tied)
    source = Models(recipe.model, registry).student
    model, plain = source.load(torch.float32), source.load(torch.float32)
    plan = build_plan(model, recipe.quantization, adapter=source.adapter, registry=registry)
    apply_plan(model, plan, registry=registry)
    rows = calibration_rows(source, texts(tmp_path), 4)
    journal = Journal(tmp_path / "journal", rows, {})
    with pytest.raises(StoppedError):
        round_layers(Decoder(model, plan, None), rows, journal, stop_at(0, 3))
    for row, own, wanted in zip(rows, journal.states(0), journal.unrounded_states(0), strict=True):
        assert torch.equal(own, packed.model.embed_tokens(row))
        assert torch.equal(wanted, plain.model.embed_tokens(row))
    assert torch.equal(model.model.embed_tokens.weight, plain.model.embed_tokens.weight)


@pytest.mark.parametrize("name", ["granite3", "gemma3", "llama3"])
@torch.no_grad()
def test_moments_of_the_head_are_those_of_the_whole_model(name: str, registry: Registry, tmp_path: Path) -> None:
    """Some models multiply what they are given in front of the first layer; behind the last there is none of that."""
    family_model(name, vocab_size=len(tokenizer())).to(torch.bfloat16).save_pretrained(tmp_path / "model")
    tokenizer().save_pretrained(tmp_path / "model")
    save_data(tmp_path / "data.jsonl")
    recipe = recipe_of(tmp_path / "model", registry, "*")
    source = Models(recipe.model, registry).student
    model: Any = source.load(torch.float32).eval()
    plan = build_plan(model, recipe.quantization, adapter=source.adapter, registry=registry)
    apply_plan(model, plan, registry=registry)
    decoder, rows = Decoder(model, plan, None), calibration_rows(source, texts(tmp_path), 4)
    states = list(decoder.begin(rows))
    for index in range(len(decoder.layers)):
        with decoder.layer(index) as through:
            states = [through(row) for row in states]
    assert decoder.head is not None
    given: list[Tensor] = []
    decoder.head.layer.register_forward_pre_hook(lambda _, inputs: given.append(inputs[0].flatten(0, 1)))
    for row in rows:
        model(row)
    whole = torch.cat(given)
    moments = decoder.head_moments(zip(states, states, strict=True))
    torch.testing.assert_close(moments.own, whole.T @ whole, rtol=1e-4, atol=1e-3)
    assert torch.equal(moments.matched(whole[:4]), whole[:4])


def test_a_head_is_rounded_some_rows_at_a_time(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe, whole = calibrated(tmp_path, registry, tied=True)
    monkeypatch.setattr(round_head, "_WEIGHTS_AT_ONCE", 7 * 64)
    given: dict[str, Any] = {"data": texts(tmp_path), "samples": 4, "processor": FLOAT32}
    pack_calibrated(recipe, registry=registry, output=tmp_path / "parts", **given)
    again: Any = load_model(tmp_path / "parts", dtype=torch.float32, registry=registry)
    whole, parts = (model.model.embed_tokens.quantized() for model in (whole, again))
    assert torch.equal(whole.qmax, parts.qmax) and whole.codes.shape == parts.codes.shape
    # Sums may differ in the last bit, and a value in the middle between two codes goes the other way.
    assert (whole.codes == parts.codes).float().mean() > 0.99
