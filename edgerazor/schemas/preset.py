"""Presets: a body of quantizers and losses from `presets/*.yaml`, sized and weighted by the model's family."""

import copy
import json
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, ClassVar

import yaml
from pydantic import Field, ValidationError, model_validator

from edgerazor.schemas.base import Schema, nearest
from edgerazor.schemas.components import AdapterParams, Declarations, GroupSizes, PresetWeights

GENERIC_WEIGHTS = PresetWeights(task=0.1, eakld=2.0, feature=0.1)


class PresetChoice(Schema):
    """Name of a preset, and group sizes of your own where the family has none or they do not fit."""

    title: ClassVar[str] = "preset"

    name: str
    group_sizes: GroupSizes | None = None

    @model_validator(mode="before")
    @classmethod
    def _bare_name(cls, value: Any) -> Any:
        return {"name": value} if isinstance(value, (str, int, float)) else value


class _PartialSizes(Schema):
    """Group sizes where each may be left to the family."""

    title: ClassVar[str] = "group_sizes"
    weights: Annotated[int | None, Field(ge=1)] = None
    activations: Annotated[int | None, Field(ge=1)] = None
    kv_cache: Annotated[int | None, Field(ge=1)] = None


def preset_names() -> list[str]:
    """Names of the presets that ship with the library."""
    return sorted(file.name.removesuffix(".yaml") for file in _folder().iterdir() if file.name.endswith(".yaml"))


def expand_preset(raw: Mapping[str, Any], registry: Declarations) -> tuple[dict[str, Any], list[str]]:
    """Fill `quantization` and `distillation` from the preset; keys that the recipe writes win, whole.

    Where the recipe writes both, nothing is filled in and the preset only says where the recipe came from, as in the
    resolved recipe of a run; its name has to be one that exists all the same.

    Returns the expanded recipe and the problems found (unknown preset, unknown family without sizes).
    """
    result, choice = dict(raw), raw.get("preset")
    if choice is None:
        return result, []
    given = {"name": choice} if not isinstance(choice, Mapping) else dict(choice)
    name = str(given.get("name"))
    if name not in preset_names():
        result.pop("preset")
        return result, [f"preset: no preset named '{name}'{nearest(name, preset_names())}"]
    if {"quantization", "distillation"} <= set(result):
        return result, []
    family = model_type(raw.get("model"))
    adapter = next((declared for declared in registry.adapter_declarations() if family in declared.model_types), None)
    sizes, problems = _group_sizes(given.get("group_sizes"), adapter, _why_no_sizes(raw.get("model"), family, registry))
    if sizes is None:
        result.pop("preset")
        return result, problems
    template = yaml.safe_load((_folder() / f"{name}.yaml").read_text(encoding="utf-8"))
    weights = (adapter.presets.get(name) if adapter else None) or GENERIC_WEIGHTS
    for section, content in _fill(template, sizes, weights).items():
        result.setdefault(section, content)
    result["preset"] = {"name": name, "group_sizes": sizes.model_dump()}
    return result, problems


def model_type(model: Any) -> str | None:
    """The family a recipe names, or the `model_type` in its model's config.json, if that is on this machine."""
    if not isinstance(model, Mapping):
        return None
    if model.get("family"):
        return str(model["family"])
    config = local_config(str(model.get("name_or_path", "")), model.get("revision"))
    try:
        return str(json.loads(config.read_text(encoding="utf-8"))["model_type"]) if config else None
    except (OSError, ValueError, LookupError, TypeError):
        return None


def local_config(name: str, revision: str | None = None) -> Path | None:
    """config.json of a model folder, or of a hub model that is in the cache already; nothing is downloaded."""
    path = Path(name) / "config.json"
    if path.is_file():
        return path
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        cached = try_to_load_from_cache(name, "config.json", revision=revision)
    except HFValidationError:
        return None
    return Path(cached) if isinstance(cached, str) else None


def _folder() -> Any:
    return resources.files("edgerazor.schemas") / "presets"


def _group_sizes(given: Any, adapter: type[AdapterParams] | None, reason: str) -> tuple[GroupSizes | None, list[str]]:
    try:
        partial = _PartialSizes.model_validate(given or {})
    except ValidationError as error:
        return None, [
            ".".join(("preset.group_sizes", *map(str, line["loc"]))) + f": {line['msg']}" for line in error.errors()
        ]
    sizes = adapter.group_sizes.model_dump() if adapter and adapter.group_sizes else {}
    sizes |= partial.model_dump(exclude_none=True)
    if set(sizes) == set(GroupSizes.model_fields):
        return GroupSizes(**sizes), []
    example = f"preset: {{name: ..., group_sizes: {{{', '.join(f'{key}: 64' for key in GroupSizes.model_fields)}}}}}"
    return None, [f"preset: {reason}, or write the sizes: {example}"]


def _why_no_sizes(model: Any, family: str | None, registry: Declarations) -> str:
    with_sizes = [declared for declared in registry.adapter_declarations() if declared.group_sizes]
    known = sorted(name for declared in with_sizes for name in declared.model_types)
    cure = f"set model.family to a known one ({', '.join(known)})"
    if family:
        return f"model type '{family}' has no group sizes of its own; {cure}"
    name = model.get("name_or_path") if isinstance(model, Mapping) else None
    because = f", because '{name}' has no config.json on this machine" if isinstance(name, str) else ""
    return f"the model's family is not known{because}; {cure}"


def _fill(template: dict[str, Any], sizes: GroupSizes, weights: PresetWeights) -> dict[str, Any]:
    filled = copy.deepcopy(template)
    quantization, distillation = filled["quantization"], filled["distillation"]
    for rule in quantization["weights"]:
        rule["quantizer"]["group_size"] = sizes.weights
    quantization["activations"]["group_size"] = sizes.activations
    quantization["kv_cache"]["group_size"] = sizes.kv_cache
    distillation["task_weight"] = weights.task
    for loss, weight in zip(distillation["losses"], (weights.eakld, weights.feature), strict=True):
        loss["weight"] = weight
    return filled
