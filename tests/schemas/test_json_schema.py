"""The JSON Schema of recipes: complete, closed, and with the registered components in their slots."""

from collections.abc import Iterator
from typing import Any, get_args

from edgerazor.core.registry import Registry
from edgerazor.recipes.json_schema import recipe_json_schema
from edgerazor.schemas.components import Kind
from edgerazor.schemas.preset import preset_names
from edgerazor.schemas.recipe import Recipe


def nodes(node: Any) -> Iterator[dict[str, Any]]:
    if isinstance(node, dict):
        yield node
    for child in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
        yield from nodes(child)


def test_no_placeholder_is_left_and_every_reference_resolves(registry: Registry) -> None:
    schema = recipe_json_schema(registry)
    for node in nodes(schema):
        assert "$component" not in node
        if isinstance(node.get("$ref"), str):
            assert node["$ref"].removeprefix("#/$defs/") in schema["$defs"]


def test_every_component_is_offered_with_its_parameters(registry: Registry) -> None:
    schema = recipe_json_schema(registry)
    references = {node["$ref"] for node in nodes(schema) if isinstance(node.get("$ref"), str)}
    for kind in set(get_args(Kind)) - {"adapter"}:
        for name in registry.names(kind):
            definition = schema["$defs"][f"{kind}.{name}"]
            declared = registry.declared(kind, name)
            assert declared is not None
            assert f"#/$defs/{kind}.{name}" in references
            assert set(definition["properties"]) == set(declared.model_fields)
            assert "name" in definition["required"]
            assert definition["additionalProperties"] is False


def test_nested_slots_are_filled_too(registry: Registry) -> None:
    layers = recipe_json_schema(registry)["$defs"]["loss.feature_mse"]["properties"]["layers"]
    assert {"$ref": "#/$defs/selector.lafd"} in layers["oneOf"]
    bare = next(alternative["enum"] for alternative in layers["oneOf"] if "enum" in alternative)
    assert bare == ["all", "lafd"]  # those whose parameters all have defaults


def test_a_preset_stands_for_the_quantization_section(registry: Registry) -> None:
    schema = recipe_json_schema(registry)
    assert set(schema["properties"]) == set(Recipe.model_fields)
    assert schema["required"] == ["model"]
    assert schema["anyOf"] == [{"required": ["quantization"]}, {"required": ["preset"]}]
    assert {"enum": preset_names()} in schema["properties"]["preset"]["anyOf"]
