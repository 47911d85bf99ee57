"""`--set key.path=value`."""

from typing import Any

import pytest

from edgerazor.core.registry import Registry
from edgerazor.errors import RecipeError
from edgerazor.schemas.overrides import apply_overrides, parse_overrides, parse_path
from edgerazor.schemas.recipe import load_recipe

RAW: dict[str, Any] = {"a": {"b": [1, {"c": 2}], "n": None}, "preset": "4-bit"}


@pytest.mark.parametrize(
    ("override", "where", "expected"),
    [
        ("a.b[1].c=0.5", ("a", "b", 1, "c"), 0.5),
        ("a.b[-1].c=null", ("a", "b", 1, "c"), None),
        ("a.b[0]={x: [1, two]}", ("a", "b", 0), {"x": [1, "two"]}),
        ("a.n.deep.er=true", ("a", "n", "deep", "er"), True),
        ("new.key=text with = sign", ("new", "key"), "text with = sign"),
        ("preset.group_sizes.weights=64", ("preset",), {"name": "4-bit", "group_sizes": {"weights": 64}}),
        ("a.b=", ("a", "b"), None),
    ],
)
def test_a_value_is_replaced(override: str, where: tuple[str | int, ...], expected: Any) -> None:
    changed, problems = apply_overrides(RAW, parse_overrides([override]))
    assert problems == []
    for part in where:
        changed = changed[part]  # type: ignore[index]
    assert changed == expected
    assert RAW == {"a": {"b": [1, {"c": 2}], "n": None}, "preset": "4-bit"}


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("a.b", "expected key.path=value, for example training.max_steps=100"),
        ("=1", "expected key.path=value, for example training.max_steps=100"),
        ("a..b=1", "expected key.path=value, for example training.max_steps=100"),
        ("a.b[2]=1", "[2] is out of range; the list has 2 entries"),
        ("a.b.c=1", "'c' is looked up in a list, which has no keys"),
        ("a[0]=1", "[0] indexes something that is not a list"),
        ("a.b=[1", "the value is not valid YAML"),
    ],
)
def test_a_path_that_leads_nowhere(override: str, message: str) -> None:
    assert apply_overrides(RAW, parse_overrides([override]))[1] == [f"{override}: {message}"]


def test_paths() -> None:
    assert parse_path("quantization.weights[1].quantizer.high_ratio") == [
        "quantization",
        "weights",
        1,
        "quantizer",
        "high_ratio",
    ]
    assert parse_path("a[0][1]") == ["a", 0, 1]
    assert parse_path("a b") == ["a b"]
    assert parse_path("a]") == []


def test_overrides_reach_into_what_a_preset_filled_in(registry: Registry) -> None:
    content = {"model": {"name_or_path": "x", "family": "llama"}, "preset": "1.88-bit"}
    recipe = load_recipe(
        content,
        registry=registry,
        overrides=[
            "quantization.weights[1].quantizer.high_ratio=0.5",
            "model.family=qwen3",
            "preset.group_sizes.kv_cache=64",
            "training.max_steps=7",
        ],
    )
    assert recipe.quantization.weights[1].quantizer.model_dump()["high_ratio"] == 0.5  # type: ignore[union-attr]
    assert recipe.quantization.kv_cache.group_size == 64  # type: ignore[union-attr]
    assert recipe.training.max_steps == 7


def test_a_misspelt_override_is_refused_like_a_misspelt_key(registry: Registry) -> None:
    content = {"model": {"name_or_path": "x", "family": "qwen3"}, "preset": "4-bit"}
    with pytest.raises(RecipeError, match="training has no 'max_step'; did you mean 'max_steps'"):
        load_recipe(content, registry=registry, overrides=["training.max_step=3"])
