"""One table says what every kind of layer is; nobody else tells kinds apart."""

import ast
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import edgerazor
from edgerazor.adapters.decoder import DecoderAdapter
from edgerazor.core.layers.table import LAYER_KINDS, find_layer, kind_named, kind_of, packed_kind_of
from edgerazor.core.packing import pack
from edgerazor.core.plan import build_plan
from edgerazor.core.registry import Registry
from edgerazor.errors import CheckpointError, PlanError
from edgerazor.schemas.recipe import load_recipe

ROOT = Path(edgerazor.__file__).parent
LAYER_CLASSES = {
    "Conv1d",
    "Conv2d",
    "Embedding",
    "FusedMatrices",
    "PackedConv",
    "PackedEmbedding",
    "PackedLinear",
    "PackedMatrices",
    "QuantConvolution",
    "QuantEmbedding",
    "QuantExperts",
    "QuantLinear",
    "TiedPackedLinear",
}


def classes_asked_for(path: Path) -> set[str]:
    """Last parts of the names that a file gives to `isinstance` as classes."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "isinstance":
            for part in ast.walk(node.args[1]):
                found |= {part.id} if isinstance(part, ast.Name) else set()
                found |= {part.attr} if isinstance(part, ast.Attribute) else set()
    return found


def test_nobody_else_tells_kinds_of_layers_apart() -> None:
    outside = [path for path in ROOT.rglob("*.py") if path.parent != ROOT / "core" / "layers"]
    ladders = {str(path.relative_to(ROOT)): classes_asked_for(path) & LAYER_CLASSES for path in outside}
    assert {path: classes for path, classes in ladders.items() if classes} == {}


@pytest.mark.parametrize("name", ["linear", "embedding", "experts"])
def test_a_layer_is_trained_packed_and_restored(name: str, build_model: Any, registry: Registry) -> None:
    mixture = {"num_experts": 3, "num_experts_per_tok": 2, "moe_intermediate_size": 32, "tie_word_embeddings": False}
    model = build_model("qwen3_moe", **mixture)
    full = {
        "linear": "model.layers.0.self_attn.q_proj",
        "embedding": "model.embed_tokens",
        "experts": "model.layers.0.mlp.experts.gate_up_proj",
    }[name]
    kind, layer = kind_named(name), find_layer(model, full)
    assert layer is not None and kind_of(layer) is kind and kind.quantizer(layer) is None
    parameter = model.get_parameter(kind.parameter_name(full))
    before, names = parameter.detach().clone(), set(model.state_dict())
    quantizer = registry.build(registry.params("quantizer", "int", bits=4, group_size=16))
    kind.make_trainable(layer, quantizer, None, None)
    layer = find_layer(model, full)
    assert layer is not None and kind_of(layer) is kind and kind.quantizer(layer) is quantizer
    assert model.get_parameter(kind.parameter_name(full)) is parameter
    codes, matrices = kind.codes(layer), kind.matrices(layer)
    assert torch.equal(matrices.unstack(codes.dequantize()), quantizer.fake_quantize(before))
    layout, tensors = pack(codes)
    packed = kind.empty_packed(layer, layout, None)
    packed.load_state_dict(tensors, strict=False)
    kind.put_packed(model, full, packed, None)
    assert model.get_submodule(full) is packed and packed_kind_of(packed) is kind
    kind.restore(model, full, nn.Parameter(kind.values(packed, torch.float32)))
    assert set(model.state_dict()) == names and kind_of(find_layer(model, full)) is kind  # type: ignore[arg-type]
    restored = model.get_parameter(kind.parameter_name(full))
    assert restored.shape == before.shape and torch.equal(restored, quantizer.fake_quantize(before))


def test_names_of_kinds_differ() -> None:
    assert len({kind.name for kind in LAYER_KINDS}) == len(LAYER_KINDS)


def test_an_embedding_cannot_borrow_a_packed_weight() -> None:
    with pytest.raises(CheckpointError, match="Embedding layers cannot share the packed weight"):
        kind_named("embedding").tied(nn.Embedding(4, 4), None, None)  # type: ignore[arg-type]


def test_a_layer_of_no_kind_is_named_before_it_is_quantized(build_model: Any, registry: Registry) -> None:
    model = build_model()

    class Wide(DecoderAdapter):
        """An adapter that gives a layer nobody can quantize."""

        def quantizable(self, model: Any) -> Any:
            yield "model.norm", model.model.norm

    rule = {"match": "*", "quantizer": {"name": "int", "bits": 4, "group_size": 32}}
    recipe = load_recipe({"model": {"name_or_path": "unused"}, "quantization": {"weights": [rule]}}, registry=registry)
    with pytest.raises(PlanError, match=r"model\.norm: is a Qwen3RMSNorm, .*linear, embedding, experts, conv"):
        build_plan(model, recipe.quantization, adapter=Wide(recipe.model), registry=registry)  # type: ignore[arg-type]
