"""q, k and v in one parameter are quantized as if each stood alone, in training and in a packed checkpoint."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from edgerazor.checkpoint import load_model, verify_checkpoint
from edgerazor.core.apply import apply_plan
from edgerazor.core.layers.matrices import Matrices, MatricesQuantizer
from edgerazor.core.plan import Plan, build_plan
from edgerazor.core.registry import Registry
from edgerazor.schemas.recipe import Recipe, load_recipe
from edgerazor.testing.models import write_packed
from tests.families import family_model

# 60 rows of q, 12 of k and 12 of v: neither 60 nor 12 is a multiple of 8.
HEADS = {"hidden_size": 60, "num_attention_heads": 5, "num_key_value_heads": 1, "head_dim": 12, "intermediate_size": 60}
ROTATION = {"rope_type": "default", "rope_theta": 1e4, "partial_rotary_factor": 1.0}
PARTS = {"qkv_proj": (60, 12, 12), "gate_up_proj": (60, 60), "o_proj": (), "down_proj": ()}


def recipe_with(registry: Registry, **quantizer: Any) -> Recipe:
    weights = [
        {"match": ["*.embed_tokens", "lm_head"], "quantizer": {"name": "int", "bits": 4}},
        {"match": "*", "quantizer": {"name": "sqmp", **quantizer}},
    ]
    return load_recipe({"model": {"name_or_path": "x"}, "quantization": {"weights": weights}}, registry=registry)


def student(registry: Registry, recipe: Recipe) -> tuple[Any, Plan]:
    model = family_model("phi4-mini", **HEADS, rope_parameters=ROTATION)
    plan = build_plan(model, recipe.quantization, adapter=registry.adapter_for("phi3"), registry=registry)
    return apply_plan(model, plan, registry=registry), plan


def alone(weight: Tensor, parts: tuple[int, ...], registry: Registry, recipe: Recipe) -> Tensor:
    """Values of the parts, each quantized by itself."""
    quantizer = registry.build(recipe.quantization.weights[1].quantizer)
    return torch.cat(
        [quantizer.quantize(part).dequantize(torch.float32) for part in weight.split(parts or len(weight))]
    )


@pytest.mark.parametrize(
    "quantizer",
    [{"high_ratio": 0.125}, {"high_ratio": 0.5}, {"high_ratio": 0.25, "placement": "variance_rows"}],
    ids=["every eighth row", "every second row", "by variance"],
)
def test_each_part_counts_its_own_rows(quantizer: dict[str, Any], registry: Registry, tmp_path: Path) -> None:
    recipe = recipe_with(registry, **quantizer)
    model, plan = student(registry, recipe)
    entries = {module.name.rpartition(".")[2]: module for module in plan.modules if ".0." in module.name}
    for leaf, parts in PARTS.items():
        layer = model.get_submodule(entries[leaf].name)
        expected = alone(layer.weight.detach(), parts, registry, recipe)
        assert torch.equal(layer.weight_quantizer.fake_quantize(layer.weight.detach()), expected)
        high = registry.build(recipe.quantization.weights[1].quantizer).widths
        counts = [high((rows, layer.weight.shape[1])).get(7, 0) for rows in parts or (len(layer.weight),)]
        assert entries[leaf].widths[7] == sum(counts)
    ids = torch.arange(9).reshape(1, 9)
    with torch.no_grad():
        logits = model(input_ids=ids).logits
    write_packed(model, tmp_path / "packed", recipe=recipe, plan=plan, registry=registry)
    assert verify_checkpoint(tmp_path / "packed").faults == ()
    with torch.no_grad():
        assert torch.equal(load_model(tmp_path / "packed", dtype=torch.float32)(input_ids=ids).logits, logits)


def test_gradients_pass_through_every_part(registry: Registry) -> None:
    model, _ = student(registry, recipe_with(registry, high_ratio=0.125))
    layer = model.model.layers[0].self_attn.qkv_proj
    assert isinstance(layer.weight_quantizer, MatricesQuantizer)
    x = torch.randn(7, 60, generator=torch.Generator().manual_seed(0))
    layer(x).sum().backward()
    torch.testing.assert_close(layer.weight.grad, x.sum(dim=0).expand_as(layer.weight))


def test_where_rows_fall_alike_the_whole_is_quantized_at_once(registry: Registry) -> None:
    quantizer = registry.build(registry.params("quantizer", "sqmp", high_ratio=0.125))
    matrices = Matrices.along_last_axis((96, 32)).split((64, 16, 16))
    assert matrices.quantizer(quantizer) is quantizer
    other = Matrices.along_last_axis((96, 32)).split((64, 20, 12))
    assert isinstance(other.quantizer(quantizer), MatricesQuantizer)
    assert other.widths_of_all(quantizer.widths) == {1: (56 + 17 + 10) * 32, 7: (8 + 3 + 2) * 32}
