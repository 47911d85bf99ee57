"""Presets choose group sizes that fit the model, for every family; where nothing fits, the matrix is named."""

from itertools import product
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from edgerazor.checkpoint.pack_source import pack_source
from edgerazor.cli import app
from edgerazor.core.plan import Plan, build_plan
from edgerazor.core.registry import Registry
from edgerazor.errors import PlanError
from edgerazor.models.load import Models, fitted_recipe, plan_recipe
from edgerazor.models.source import build_meta_model
from edgerazor.schemas.preset import preset_names
from edgerazor.schemas.recipe import Recipe, load_recipe
from tests.families import FAMILIES, family_config, family_model

COLUMNS = (576, 960, 1152, 1536, 2048, 2304, 3072)
HEAD_WIDTHS = (64, 80, 96, 128, 256)
# One configuration of each model type; Omni's sizes are those of its towers, too.
ONE_OF_EACH = {model_type: name for name, (model_type, _) in FAMILIES.items() if name != "omni"}
ONE_LAYER = {"num_hidden_layers": 1, "layer_types": None, "no_rope_layers": None, "rope_parameters": None}


def recipe_for(registry: Registry, family: str, preset: Any) -> Recipe:
    return load_recipe({"model": {"name_or_path": "x", "family": family}, "preset": preset}, registry=registry)


def plan(registry: Registry, family: str, presets: list[Any], **sizes: Any) -> list[Plan]:
    """Plans of one meta model under some presets."""
    same = {key: value for key, value in ONE_LAYER.items() if key == "num_hidden_layers" or key in FAMILY_KEYS[family]}
    model = build_meta_model(family_config(ONE_OF_EACH[family], **same, **sizes))
    adapter = registry.adapter_for(family)
    sections = [recipe_for(registry, family, preset).quantization for preset in presets]
    return [build_plan(model, section, adapter=adapter, registry=registry) for section in sections]


FAMILY_KEYS = {family: FAMILIES[name][1].keys() for family, name in ONE_OF_EACH.items()}


def largest(columns: list[int], wish: int) -> int:
    return next(size for size in (wish, 256, 128, 64, 32) if all(width % size == 0 for width in columns))


@pytest.mark.slow
@pytest.mark.parametrize("family", ONE_OF_EACH)
def test_every_preset_fits_every_family(family: str, registry: Registry) -> None:
    published = next(
        declared.group_sizes for declared in registry.adapter_declarations() if family in declared.model_types
    )
    names = preset_names()
    for index, (columns, head_dim) in enumerate(product(COLUMNS, HEAD_WIDTHS)):
        sizes = {"hidden_size": columns, "intermediate_size": 1536, "head_dim": head_dim, "num_attention_heads": 4}
        mixture = {"moe_intermediate_size": 768} if family == "qwen3_moe" else {}
        # One preset for each pair: every preset meets every width of heads.
        name = names[index % len(names)]
        wish = 32 if "mixed" in name else published.weights if published else 256
        for found in plan(registry, family, [name], **sizes, **mixture):
            assert found.quantization.fit == () and found.kv_cache is not None and found.activations is not None
            widths: dict[int, list[int]] = {}
            for module in found.modules:
                widths.setdefault(module.rule, []).append(module.matrices.columns)
            for rule, of_rule in widths.items():
                assert found.quantization.weights[rule].quantizer.group_size == largest(of_rule, wish)  # type: ignore[union-attr]
            inputs = [module.matrices.columns for module in found.modules if module.kind != "embedding"]
            assert found.activations.group_size == largest(inputs, wish)
            heads = found.kv_cache.group_size
            assert heads is not None and head_dim % heads == 0 and heads >= 32


def test_a_size_that_gives_way_is_said_with_its_reason(registry: Registry) -> None:
    (found,) = plan(registry, "qwen3", ["1.88-bit"], hidden_size=576, intermediate_size=1536, head_dim=80)
    assert found.notes[:4] == (
        "quantization.weights[0]: group size 64 in place of 256: the largest of 256, 128, 64, 32 that divides 576 "
        "columns",
        "quantization.weights[1]: group size 64 in place of 256: the largest of 256, 128, 64, 32 that divides 320, 576 "
        "and 1536 columns",
        "quantization.activations: group size 64 in place of 256: the largest of 256, 128, 64, 32 that divides 320, "
        "576 and 1536 columns",
        "quantization.kv_cache: group size 80 in place of 128: a whole head, since none of 256, 128, 64, 32 divides it",
    )


def test_where_nothing_fits_the_matrix_is_named(registry: Registry) -> None:
    sizes = {"hidden_size": 576, "intermediate_size": 1536, "num_attention_heads": 9, "head_dim": 80}
    with pytest.raises(PlanError) as caught:
        plan(registry, "llama", ["4-bit"], **sizes, num_key_value_heads=3)
    weights, inputs = str(caught.value).splitlines()
    assert weights.startswith("model.layers.0.self_attn.o_proj: 720 columns are not a multiple of group_size 32;")
    assert inputs.startswith("model.layers.0.self_attn.o_proj: activations: 720 columns are not a multiple of")


def test_sizes_that_are_written_are_taken_or_refused(registry: Registry) -> None:
    written = {"name": "4-bit", "group_sizes": {"weights": 192}}
    (found,) = plan(registry, "llama", [written], hidden_size=576, intermediate_size=1536, head_dim=96)
    assert found.quantization.weights[1].quantizer.group_size == 192  # type: ignore[union-attr]
    assert found.activations is not None and found.activations.group_size == 64
    written["group_sizes"] = {"weights": 256}
    with pytest.raises(PlanError, match="576 columns are not a multiple of group_size 256"):
        plan(registry, "llama", [written], hidden_size=576, intermediate_size=1536, head_dim=96)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["smollm2", "gemma3", "phi4-mini", "granite3"])
def test_packing_needs_a_model_and_a_width(name: str, registry: Registry, tmp_path: Path) -> None:
    """The sizes stand in the recipe of the packed checkpoint, which reads as one that fits already."""
    family_model(name).save_pretrained(tmp_path / "model")
    result = pack_source(str(tmp_path / "model"), registry=registry, output=tmp_path / "packed", preset="2.79-bit")
    assert any("group size" in note for note in result.notes)
    content = yaml.safe_load((tmp_path / "packed" / "config.json").read_text(encoding="utf-8"))
    stored = content["quantization_config"]["recipe"]
    assert "fit" not in stored["quantization"]
    assert stored["preset"] == {"name": "2.79-bit", "group_sizes": None, "scale_dtype": None}
    embedding, body = (rule["quantizer"]["group_size"] for rule in stored["quantization"]["weights"])
    assert (embedding, body) == (32 if name == "smollm2" else 64, 32)
    again = load_recipe(stored, registry=registry)
    assert fitted_recipe(Models(again.model, registry), again) == again
    assert plan_recipe(again, registry=registry).quantization == again.quantization


def test_the_command_needs_no_more(tmp_path: Path) -> None:
    family_model("llama3").save_pretrained(tmp_path / "model")
    arguments = ["pack", str(tmp_path / "model"), "--preset", "1.58-bit", "--output", str(tmp_path / "packed")]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    assert "note: quantization.kv_cache: group size 16 in place of 256: a whole head" in result.output
