"""JSON Schema of recipes, with every registered component in the slots that take it."""

from typing import Any, get_args

from edgerazor.core.registry import Registry
from edgerazor.schemas.components import ComponentParams, Kind
from edgerazor.schemas.preset import preset_names
from edgerazor.schemas.recipe import Recipe

_REFERENCE = "#/$defs/{model}"


def recipe_json_schema(registry: Registry) -> dict[str, Any]:
    """What an editor needs to complete and check a recipe; plugins' components are in it like ours."""
    schema = Recipe.model_json_schema(ref_template=_REFERENCE)
    definitions: dict[str, Any] = schema["$defs"]
    for kind in get_args(Kind):
        for name in registry.names(kind):
            declared = registry.declared(kind, name)
            if kind != "adapter" and declared is not None:
                definitions[f"{kind}.{name}"] = _component_schema(declared, definitions)
    schema = {"$schema": "https://json-schema.org/draft/2020-12/schema", **_filled(schema, registry)}
    _allow_presets(schema)
    return schema


def _component_schema(declared: type[ComponentParams], definitions: dict[str, Any]) -> dict[str, Any]:
    """Schema of one component; what it refers to goes to `definitions` under a prefix, so that names cannot clash."""
    prefix = f"{declared.kind}.{declared.component_name()}."
    schema = declared.model_json_schema(ref_template=f"#/$defs/{prefix}{{model}}")
    for name, nested in schema.pop("$defs", {}).items():
        definitions[prefix + name] = nested
    # A slot finds the class by its name, so in a recipe the name is required although the class has a default.
    schema["required"] = sorted({"name", *schema.get("required", [])})
    return schema


def _filled(node: Any, registry: Registry) -> Any:
    """A copy in which each `{"$component": kind}` lists the components of that kind."""
    if isinstance(node, list):
        return [_filled(item, registry) for item in node]
    if not isinstance(node, dict):
        return node
    if "$component" in node:
        rest = {key: value for key, value in node.items() if key != "$component"}
        return {**rest, **_choices(node["$component"], registry)}
    return {key: _filled(value, registry) for key, value in node.items()}


def _choices(kind: Kind, registry: Registry) -> dict[str, Any]:
    """One of the registered classes, or the bare name of one that needs no parameters; nothing if there are none."""
    names = registry.names(kind)
    if not names:
        return {"not": {}}
    bare = [name for name in names if (one := registry.declared(kind, name)) and not _needs_parameters(one)]
    choices: list[dict[str, Any]] = [{"$ref": f"#/$defs/{kind}.{name}"} for name in names]
    return {"oneOf": [*choices, {"enum": bare}] if bare else choices}


def _needs_parameters(declared: type[ComponentParams]) -> bool:
    extra = declared.model_config.get("json_schema_extra")
    one_of_some = isinstance(extra, dict) and "anyOf" in extra
    return one_of_some or any(field.is_required() for field in declared.model_fields.values())


def _allow_presets(schema: dict[str, Any]) -> None:
    """A preset may be a bare name, and stands for the quantization section."""
    schema["$defs"]["PresetChoice"]["properties"]["name"]["enum"] = preset_names()
    schema["properties"]["preset"]["anyOf"].insert(0, {"enum": preset_names()})
    schema["required"] = [key for key in schema["required"] if key != "quantization"]
    schema["anyOf"] = [{"required": ["quantization"]}, {"required": ["preset"]}]
