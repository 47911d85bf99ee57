"""What is loaded is the student, bit for bit, in every way of loading."""

from typing import Literal

import pytest
import torch
from torch import nn

from edgerazor.checkpoint import load_model, pack_model, verify_checkpoint
from edgerazor.core.layers.attention import attention_modules
from edgerazor.core.layers.embedding import PackedEmbedding
from edgerazor.core.layers.linear import PackedLinear, TiedPackedLinear
from edgerazor.core.layers.packed import PackedWeight
from edgerazor.core.registry import Component, Registry
from edgerazor.errors import CheckpointError
from edgerazor.plugins.quantizers.params import IntParams
from edgerazor.schemas.recipe import load_recipe
from tests.packed_cases import CASES, logits, make_student
from tests.runs import quantization, recipe

pytestmark = pytest.mark.slow


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("case", CASES)
def test_logits_equal_the_student(case, dtype, build_model, registry, tmp_path):
    student = make_student(build_model, registry, tmp_path, case, dtype=dtype)
    student.write(tmp_path / "packed")
    expected = logits(student.model)
    for compute in ("cached", "packed"):
        model = load_model(tmp_path / "packed", compute=compute)
        assert model.dtype == dtype and not model.training
        assert torch.equal(logits(model), expected)
        kept = [
            module
            for module in model.modules()
            if isinstance(module, PackedWeight) and module.cached_weight is not None
        ]
        assert bool(kept) == (compute == "cached")


@pytest.mark.parametrize("case", ["tied", "untied"])
def test_dequantized_is_an_ordinary_model_of_equal_logits(case, build_model, registry, tmp_path):
    student = make_student(build_model, registry, tmp_path, case, kv_cache=None)
    student.write(tmp_path / "packed")
    expected = logits(load_model(tmp_path / "packed", activations=False))
    plain = load_model(tmp_path / "packed", dequantize=True)
    assert torch.equal(logits(plain), expected)
    assert not any(isinstance(module, (PackedWeight, TiedPackedLinear)) for module in plain.modules())
    assert type(plain.lm_head) is nn.Linear and type(plain.model.embed_tokens) is nn.Embedding
    assert (plain.lm_head.weight is plain.model.embed_tokens.weight) == (case == "tied")
    assert not hasattr(plain.config, "quantization_config")
    assert all(parameter.requires_grad for parameter in plain.parameters())


def test_activations_can_be_left_out(build_model, registry, tmp_path):
    student = make_student(build_model, registry, tmp_path)
    student.write(tmp_path / "packed")
    model = load_model(tmp_path / "packed", activations=False)
    assert not torch.equal(logits(model), logits(student.model))
    for module in student.model.modules():
        if hasattr(module, "input_quantizer"):
            module.input_quantizer = None
    assert torch.equal(logits(model), logits(student.model))
    assert all(module.kv_quantizer is not None for _, module in attention_modules(model))


@pytest.mark.parametrize("case", ["tied", "untied"])
def test_greedy_tokens_equal_the_student(case, build_model, registry, tmp_path):
    student = make_student(build_model, registry, tmp_path, case)
    student.write(tmp_path / "packed")
    tokens = torch.arange(5).unsqueeze(0)
    options = {"max_new_tokens": 8, "do_sample": False, "pad_token_id": 0}
    model = load_model(tmp_path / "packed")
    assert torch.equal(model.generate(tokens, **options), student.model.generate(tokens, **options))


def test_rows_of_zeros_stay_zero(build_model, registry, tmp_path):
    student = make_student(build_model, registry, tmp_path)
    with torch.no_grad():
        student.model.model.embed_tokens.weight[:3] = 0.0
        student.model.model.layers[0].mlp.up_proj.weight[:9] = 1e-9
    student.write(tmp_path / "packed")
    assert verify_checkpoint(tmp_path / "packed").ok
    model = load_model(tmp_path / "packed")
    assert not model.get_input_embeddings().weight[:3].any() and not model.model.layers[0].mlp.up_proj.weight[:9].any()
    assert bool(torch.isfinite(logits(model)).all()) and torch.equal(logits(model), logits(student.model))


def test_an_adapter_can_take_over_the_packed_head(build_model, registry, tmp_path):
    student = make_student(build_model, registry, tmp_path)
    student.write(tmp_path / "packed")
    adapter, model = registry.adapter_for("qwen3"), load_model(tmp_path / "packed")
    tokens = torch.arange(8).unsqueeze(0)
    with torch.no_grad():
        output = adapter.forward(model, {"input_ids": tokens}, frozenset())
        assert torch.equal(output.logits, model(input_ids=tokens).logits)


def test_packed_modules_look_like_those_they_replace(build_model, registry, tmp_path):
    student = make_student(build_model, registry, tmp_path)
    student.write(tmp_path / "packed")
    model = load_model(tmp_path / "packed")
    up, embedding, head = model.model.layers[0].mlp.up_proj, model.get_input_embeddings(), model.get_output_embeddings()
    assert isinstance(up, PackedLinear) and (up.in_features, up.out_features) == (64, 96)
    assert isinstance(embedding, PackedEmbedding) and (embedding.num_embeddings, embedding.embedding_dim) == (96, 64)
    assert isinstance(head, TiedPackedLinear) and not list(head.parameters()) and not head.state_dict()
    assert torch.equal(head.weight, embedding.weight)
    original = student.model.model.embed_tokens
    assert torch.equal(embedding.weight, original.weight_quantizer.quantize(original.weight).dequantize())
    with pytest.raises(AttributeError):
        up.weight = torch.zeros(96, 64)


def preset(source, **values):
    rules = [{"match": "*", "quantizer": {"name": "ternary", "group_size": 32, **values}}]
    return {"model": {"name_or_path": str(source)}, "quantization": {"weights": rules}}


def test_packing_a_float_folder_rounds_it(build_model, registry, tmp_path):
    student = make_student(build_model, registry, tmp_path, "one-scale-a-row", dtype=torch.bfloat16)
    report = pack_model(student.recipe, registry=registry, output=tmp_path / "packed")
    assert report.nominal_bits == pytest.approx(1.58) and report.file_compression > 4
    assert verify_checkpoint(tmp_path / "packed").ok
    model = load_model(tmp_path / "packed")
    assert model.dtype == torch.bfloat16
    assert torch.equal(logits(model), logits(student.model))


def test_what_is_packed_is_not_packed_again(build_model, registry, tmp_path):
    make_student(build_model, registry, tmp_path).write(tmp_path / "packed")
    recipe = load_recipe(preset(tmp_path / "packed"), registry=registry)
    with pytest.raises(CheckpointError, match="already quantized"):
        pack_model(recipe, registry=registry, output=tmp_path / "again")


def test_the_output_is_checked_before_the_model_is_loaded(registry, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").write_text("x")
    recipe = load_recipe(preset(tmp_path / "nowhere"), registry=registry)
    with pytest.raises(CheckpointError, match="choose another folder"):
        pack_model(recipe, registry=registry, output=tmp_path / "out")
    with pytest.raises(CheckpointError, match="nowhere"):
        pack_model(recipe, registry=registry, output=tmp_path / "free")


class MyIntParams(IntParams):
    name: Literal["mine.int"] = "mine.int"


def test_a_registry_that_is_handed_in_builds_the_quantizers(registry, tmp_path):
    """Its plugin is installed nowhere: every command and transformers alone know nothing of it."""
    mine = Registry({**registry._components, ("quantizer", "mine.int"): Component(MyIntParams, "mine", __name__)}, [])
    own = {"name": "mine.int", "bits": 8, "group_size": 16}
    content = recipe(tmp_path, quantization={**quantization(), "activations": own, "kv_cache": own})
    pack_model(load_recipe(content, registry=mine), registry=mine, output=tmp_path / "packed")
    model = load_model(tmp_path / "packed", registry=mine)
    assert all(module.kv_quantizer.params.name == "mine.int" for _, module in attention_modules(model))
    model.save_pretrained(tmp_path / "saved")
    assert '"registry"' not in (tmp_path / "saved" / "config.json").read_text()
    assert verify_checkpoint(tmp_path / "packed", logits=True, registry=mine).ok
    with pytest.raises(CheckpointError, match=r"no plugin 'mine' is installed"):
        load_model(tmp_path / "packed")
