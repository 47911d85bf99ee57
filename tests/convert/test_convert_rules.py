"""Selection and overrides of the original as weight rules: every module gets what it got there."""

import re
from fnmatch import fnmatchcase
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgerazor.convert import ConversionResult, convert_recipe
from edgerazor.convert.modules import decoder, mixture, omni
from edgerazor.convert.patterns import globs_of, matches
from edgerazor.core.registry import Registry
from edgerazor.errors import RecipeError
from tests.convert.originals import INT4, function

TERNARY = {"name": "ternary", "group_size": 256}
FOUR_BIT = {"name": "int", "bits": 4, "group_size": 256}
EIGHT_BIT = {"name": "int", "bits": 8, "group_size": 256}
INT8 = "weight_quant_uniform_symmetric_absmax_per_block_int8"


def convert(registry: Registry, *overrides: dict[str, Any], **select: Any) -> ConversionResult:
    select = {"target_types": ["linear", "embedding"], **select}
    old = {"method": "QAT", "select": select, "function": function("1.58"), "overrides": list(overrides)}
    return convert_recipe(old, registry=registry)


def rules(registry: Registry, *overrides: dict[str, Any], **select: Any) -> list[tuple[Any, Any]]:
    weights = convert(registry, *overrides, **select).recipe["quantization"]["weights"]
    return [(rule["match"], rule["quantizer"]) for rule in weights]


def problems(registry: Registry, *overrides: dict[str, Any], **select: Any) -> list[str]:
    with pytest.raises(RecipeError) as caught:
        convert(registry, *overrides, **select)
    return caught.value.problems


def four_bit(name: str, **values: Any) -> dict[str, Any]:
    return {"name": name, "weight_function": INT4, "w_scale_factor": -1, **values}


def test_one_quantizer_for_everything_is_one_rule(registry: Registry) -> None:
    assert rules(registry) == [("*", TERNARY)]


def test_types_that_are_not_targets_stay_float(registry: Registry) -> None:
    assert rules(registry, target_types=["linear"]) == [("*.embed_tokens", None), ("*", TERNARY)]
    assert rules(registry, target_types=["embedding"]) == [("*.embed_tokens", TERNARY)]
    assert rules(registry, exclude_types=["embedding"]) == [("*.embed_tokens", None), ("*", TERNARY)]


def test_excluded_names_are_left_alone(registry: Registry) -> None:
    found = rules(registry, target_types=["linear"], exclude_names=["lm_head"])
    assert found == [(["*.embed_tokens", "lm_head"], None), ("*", TERNARY)]
    found = rules(registry, exclude_names=[r".*\.(q|k)_proj$", "lm_head"])
    assert found == [(["lm_head", "*.q_proj", "*.k_proj"], None), ("*", TERNARY)]


def test_names_can_be_targets(registry: Registry) -> None:
    found = rules(registry, target_types=[], target_names=[r"model\.layers\.\d+\.mlp"])
    assert found == [("model.layers.*.mlp.*", TERNARY)]
    found = rules(registry, target_types=[], target_names=["lm_head", ".*down_proj"])
    assert found == [(["lm_head", "*down_proj"], TERNARY)]


def test_the_last_override_that_takes_a_module_wins(registry: Registry) -> None:
    found = rules(registry, four_bit(".*_proj"), four_bit(".*down_proj", weight_function=INT8), four_bit("lm_head"))
    assert found == [("lm_head", FOUR_BIT), ("*down_proj", EIGHT_BIT), ("*_proj", FOUR_BIT), ("*", TERNARY)]
    found = rules(registry, four_bit(".*down_proj", weight_function=INT8), four_bit(".*_proj"))
    assert found == [("*_proj", FOUR_BIT), ("*", TERNARY)]


def first(found: list[tuple[Any, Any]], name: str) -> Any:
    for match, quantizer in found:
        if any(fnmatchcase(name, glob) for glob in ([match] if isinstance(match, str) else match)):
            return quantizer
    return None


def test_overrides_that_meet_are_merged(registry: Registry) -> None:
    """The first changes the group size of every linear layer, the second the function of some of them."""
    found = rules(registry, {"type": "linear", "w_block_size": 64}, four_bit(".*v_proj"))
    assert first(found, "model.layers.0.self_attn.v_proj") == {**FOUR_BIT, "group_size": 64}
    assert first(found, "model.layers.0.self_attn.o_proj") == {**TERNARY, "group_size": 64}
    assert first(found, "lm_head") == {**TERNARY, "group_size": 64}
    assert first(found, "model.embed_tokens") == TERNARY


def test_overrides_that_no_list_of_rules_can_say(registry: Registry) -> None:
    said = problems(registry, {"name": ".*layers.0.", "w_block_size": 64}, four_bit(".*v_proj"))
    start = "select: no list of rules says the same: model.layers.0.self_attn.v_proj gets name=int bits=4 group_size=64"
    assert len(said) == 1 and said[0].startswith(start)


def test_a_number_at_the_end_is_a_prefix(registry: Registry) -> None:
    converted = convert(registry, exclude_names=["model.layers.1"])
    assert converted.recipe["quantization"]["weights"][0] == {"match": "model.layers.1*", "quantizer": None}
    assert any("also model.layers.10, model.layers.11 and so on" in note for note in converted.notes)
    converted = convert(registry, exclude_names=[r"model\.layers\.1\."])
    assert converted.recipe["quantization"]["weights"][0]["match"] == "model.layers.1.*"
    assert not any("and so on" in note for note in converted.notes)


def test_patterns_that_take_nothing_are_named(registry: Registry) -> None:
    notes = convert(registry, exclude_names=["classifier"]).notes
    assert any(note.startswith("select.exclude_names[0]: 'classifier' takes no module") for note in notes)
    said = problems(registry, target_types=["embedding"], target_names=["classifier"])
    assert said == ["select.target_names[0]: 'classifier' takes no module of a family that is known here"]
    said = problems(registry, four_bit("lm_haed"), {"weight_function": INT4}, {"type": "conv2d", "w_block_size": 32})
    assert said == [
        f"{path}: the override takes no module of a family that is known here"
        for path in ("overrides[0].name", "overrides[1]", "overrides[2]")
    ]


def test_activations_are_the_same_everywhere(registry: Registry) -> None:
    assert convert(registry, four_bit("model.embed_tokens", a_block_size=32)).recipe["quantization"]["activations"]
    said = problems(registry, four_bit("lm_head", a_block_size=32))
    assert said == ["overrides[0].a_block_size: a recipe has one quantizer for all activations"]
    notes = convert(registry, four_bit("lm_head", kv_block_size=32)).notes
    assert "overrides[0].kv_block_size: acts on attention, not in an override; left out" in notes


def test_keys_and_values_need_their_target(registry: Registry) -> None:
    converted = convert(registry)
    assert converted.recipe["quantization"]["kv_cache"] is None
    assert any(note.startswith("select.target_types: names neither attention nor kv_cache") for note in converted.notes)
    for name in ("kv_cache", "qwen3attention", "llamaattention", ".*attention", ".*"):
        kv_cache = convert(registry, target_types=["linear", name]).recipe["quantization"]["kv_cache"]
        assert kv_cache == {"name": "int", "bits": 8, "group_size": 128}


def test_keys_and_values_alone(registry: Registry) -> None:
    converted = convert(registry, target_types=["kv_cache"])
    quantization = converted.recipe["quantization"]
    assert quantization["weights"] == [{"match": "*", "quantizer": None}] and quantization["activations"] is None
    assert any("activation_function: acts on quantized linear layers" in note for note in converted.notes)
    assert problems(registry, target_types=[]) == [
        "select.target_types: selects nothing, so nothing would be quantized",
    ]


def test_module_types(registry: Registry) -> None:
    said = problems(registry, target_types=["linear", "conv2d", "olmoeattention", "liner", "(x"])
    assert [line.partition(": ")[0] for line in said] == [f"select.target_types[{index}]" for index in (1, 2, 3, 4)]
    assert "convolutions are not quantized" in said[0] and "no adapter covers OLMoE" in said[1]
    assert "did you mean 'linear'?" in said[2] and "is no regular expression" in said[3]
    notes = convert(registry, target_types=[".*"]).notes
    assert any("target_types[0]: takes 'conv1d' as well: convolutions are not quantized" in note for note in notes)


def test_a_mixture_of_experts(registry: Registry) -> None:
    """One linear layer per expert there; here one parameter holds gate and up of all of them."""
    types = ["linear", "embedding", "qwen3moeattention"]
    gate_up = four_bit(r"model\.layers\.\d+\.mlp\.experts\.\d+\.(gate|up)_proj")
    found = rules(registry, gate_up, target_types=types)
    assert found == [("model.layers.*.mlp.experts.gate_up_proj", FOUR_BIT), ("*", TERNARY)]
    notes = convert(registry, target_types=types).notes
    assert any("model.layers.*.mlp.gate: quantized by the original, stays" in note for note in notes)
    said = problems(registry, four_bit(r".*experts\.\d+\.gate_proj"), target_types=types)
    assert len(said) == 1 and "no list of rules says the same: model.layers.0.mlp.experts.0.up_proj" in said[0]


@pytest.mark.parametrize(
    ("pattern", "globs"),
    [
        ("model.layers.3.", ["model?layers?3?*"]),
        (r"model\.layers\.(0|1|27)\.", ["model.layers.0.*", "model.layers.1.*", "model.layers.27.*"]),
        (r"model\.layers\.[0-3]\.self_attn", ["model.layers.[0-3].self_attn.*"]),
        (r"^model\.layers\.\d\.mlp\.up_proj$", ["model.layers.[0-9].mlp.up_proj"]),
        (".*(gate|up)_proj", ["*gate_proj", "*up_proj"]),
        (".*q_proj|.*k_proj", ["*q_proj", "*k_proj"]),
        ("model.layers.5.mlp.down_proj", ["model.layers.5.mlp.down_proj"]),
        ("lm_head", []),
        ("nothing", []),
        (r"model\.layers\.(?!0\.).*", None),
        (r"(model\.)?layers", None),
    ],
)
def test_globs(pattern: str, globs: list[str] | None) -> None:
    body = [module for module in decoder() if module.part == "body"]
    assert globs_of(pattern, body) == globs


PIECES = st.sampled_from(
    [
        "model",
        "thinker",
        "layers",
        "visual",
        r"\.",
        ".",
        ".*",
        r"\d+",
        "1",
        "12",
        "mlp",
        "self_attn",
        "(q|v)_proj",
        "$",
        "experts",
    ]
)


@pytest.mark.parametrize("modules", [decoder(), mixture(), omni()], ids=["decoder", "mixture", "omni"])
@given(pieces=st.lists(PIECES, min_size=1, max_size=6))
def test_globs_take_what_the_pattern_takes_or_there_are_none(modules: Any, pieces: list[str]) -> None:
    pattern = "".join(pieces)
    globs = globs_of(pattern, modules)
    if globs is None:
        return
    for module in modules:
        taken = module.ours is not None and any(fnmatchcase(module.ours, glob) for glob in globs)
        same_name = [other for other in modules if other.ours == module.ours and module.ours is not None]
        assert taken == any(matches(pattern, other.name) for other in same_name), (pattern, globs, module)


def test_patterns_are_matched_from_the_start() -> None:
    assert matches("lm_head", "lm_head.weight") and not matches("head", "lm_head")
    with pytest.raises(re.error):
        matches("(", "lm_head")
