"""Presets: a body of quantizers and losses from `presets/*.yaml`, sized and weighted by the model's family."""

import copy
import json
from collections.abc import Iterable, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, get_args

import yaml
from pydantic import Field, ValidationError, model_validator

from edgerazor.schemas.base import Schema, nearest
from edgerazor.schemas.components import AdapterParams, Declarations, GroupSizes, PresetWeights
from edgerazor.schemas.overrides import Override
from edgerazor.schemas.training import STARTS

WISHES = GroupSizes(weights=256, activations=256, kv_cache=256)
GENERIC_WEIGHTS = PresetWeights(task=0.1, eakld=2.0, feature=0.1)


class PresetSizes(Schema):
    """Group sizes that shall be just these; those that are not written are chosen to fit the model."""

    title: ClassVar[str] = "group_sizes"
    weights: Annotated[int | None, Field(ge=1)] = None
    activations: Annotated[int | None, Field(ge=1)] = None
    kv_cache: Annotated[int | None, Field(ge=1)] = None


PresetScaleDtype = Literal["float16", "float16_bfloat16"]
OWN = "edgerazor"


class PresetChoice(Schema):
    """Name of a preset, group sizes of your own in place of those that fit, and which scales weights may have."""

    title: ClassVar[str] = "preset"

    name: str
    group_sizes: PresetSizes | None = None
    scale_dtype: Annotated[
        PresetScaleDtype | None,
        Field(
            description="Of all weights. float16_bfloat16: exact in engines of either type; null: that in presets "
            "edgerazor-*, float16 in the published ones."
        ),
    ] = None

    @model_validator(mode="before")
    @classmethod
    def _bare_name(cls, value: Any) -> Any:
        return {"name": value} if isinstance(value, (str, int, float)) else value


def preset_names() -> list[str]:
    """Names of the presets that ship with the library: the published ones, and ours for each of them."""
    files = (file.name.removesuffix(".yaml") for file in _folder().iterdir() if file.name.endswith(".yaml"))
    published = sorted(name for name in files if name != OWN)
    return [*published, *(f"{OWN}-{name}" for name in published)]


def expand_preset(raw: Mapping[str, Any], registry: Declarations) -> tuple[dict[str, Any], list[str]]:
    """Fill `quantization` and `distillation` from the preset; keys that the recipe writes win, whole.

    Presets of ours also say where training on texts begins, and that a run chooses widths where they are mixed.

    Where the recipe writes both, nothing is filled in and the preset only says where the recipe came from, as in the
    resolved recipe of a run; its name has to be one that exists all the same.

    Returns the expanded recipe and the problems found (unknown preset, unknown family).
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
    try:
        written = PresetSizes.model_validate(given.get("group_sizes") or {}).model_dump(exclude_none=True)
    except ValidationError as error:
        result.pop("preset")
        return result, [
            ".".join(("preset.group_sizes", *map(str, line["loc"]))) + f": {line['msg']}" for line in error.errors()
        ]
    fit = [key for key in GroupSizes.model_fields if key not in written]
    if family is None and fit:
        result.pop("preset")
        return result, [f"preset: {_why_unknown(raw.get('model'), registry)}"]
    template = _template(name)
    usual, ours = template.pop("scale_dtype", None), template.pop("training", {})
    scale_dtype = given.get("scale_dtype") or usual
    if scale_dtype in get_args(PresetScaleDtype):  # anything else is refused with the preset itself
        for rule in template["quantization"]["weights"]:
            rule["quantizer"]["scale_dtype"] = scale_dtype
    training = _training(result, ours)
    result = {**_of_family(template, name, adapter, written, fit), **result, **training}
    result["preset"] = {"name": name, "group_sizes": written or None, "scale_dtype": scale_dtype}
    return result, []


def keep_written_sizes(recipe: Mapping[str, Any], overrides: Iterable[Override]) -> None:
    """Take the quantizers whose group size an override writes out of `quantization.fit`, in place."""
    written = {
        override.path[1]
        for override in overrides
        if override.path[:1] == ("quantization",) and len(override.path) > 1 and override.writes("group_size")
    }
    quantization = recipe.get("quantization")
    if written and isinstance(quantization, dict) and isinstance(quantization.get("fit"), list):
        quantization["fit"] = [key for key in quantization["fit"] if key not in written]


def model_type(model: Any) -> str | None:
    """The family a recipe names, or the `model_type` in its model's config.json, if that is on this machine."""
    if not isinstance(model, Mapping):
        return None
    if model.get("family"):
        return str(model["family"])
    config = local_config(str(model.get("name_or_path", "")), model.get("revision"))
    try:
        return str(json.loads(config.read_text(encoding="utf-8"))["model_type"]) if config else None
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
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


def _template(name: str) -> dict[str, Any]:
    """What the file of a preset says, with what ours changes of it."""
    published = _published(name)
    template: dict[str, Any] = _read(published)
    if published != name:
        changes = _read(OWN)
        template["scale_dtype"] = changes["scale_dtype"]
        for rule in template["quantization"]["weights"]:
            quantizer = rule["quantizer"]
            quantizer.update(changes.get(f"{quantizer['name']}_{quantizer.get('bits')}", {}))
        for loss in template["distillation"]["losses"]:
            loss.update(changes.get(loss["name"], {}))
        template["training"] = changes["training"]
        if template["quantization"]["weights"][-1]["quantizer"]["name"] != "sqmp":
            del template["training"]["allocation"]
    return template


def _published(name: str) -> str:
    return name.removeprefix(f"{OWN}-")


def _read(name: str) -> Any:
    return yaml.safe_load((_folder() / f"{name}.yaml").read_text(encoding="utf-8"))


def _folder() -> Any:
    return resources.files("edgerazor.schemas") / "presets"


def _why_unknown(model: Any, registry: Declarations) -> str:
    known = sorted(name for declared in registry.adapter_declarations() for name in declared.model_types)
    name = model.get("name_or_path") if isinstance(model, Mapping) else None
    because = f", because '{name}' has no config.json on this machine" if isinstance(name, str) else ""
    return f"the model's family is not known{because}; set model.family to one of {', '.join(known)}"


def _rename(template: dict[str, Any], renamed: Mapping[str, str]) -> None:
    """Call the modules that rules match what the family calls them, in place; none is matched twice."""
    for rule in template["quantization"]["weights"]:
        if isinstance(rule["match"], list):
            parts = [pattern.rpartition(".") for pattern in rule["match"]]
            named = (f"{stem}{dot}{renamed.get(leaf, leaf)}" for stem, dot, leaf in parts)
            rule["match"] = list(dict.fromkeys(named))


def _of_family(
    template: dict[str, Any],
    name: str,
    adapter: type[AdapterParams] | None,
    written: Mapping[str, int],
    fit: Sequence[str],
) -> dict[str, Any]:
    """The sections of a preset in the sizes, weights and names of a family."""
    usual = ((adapter and adapter.group_sizes) or WISHES).model_dump()
    sizes = GroupSizes(**{**usual, **template.pop("group_sizes", {}), **written})
    like = template.pop("like", _published(name))
    weights = (adapter.presets.get(like) if adapter else None) or GENERIC_WEIGHTS
    _rename(template, adapter.renamed if adapter else {})
    filled = _fill(template, sizes, weights, fit)
    if adapter is not None:
        _suit(filled, adapter)
    return filled


def _training(raw: Mapping[str, Any], ours: Mapping[str, Any]) -> dict[str, Any]:
    """The `training` section of a recipe with what a preset of ours adds, where quantizers are the preset's and texts
    are trained on; a student that begins at a packed checkpoint has the widths of that.
    """
    data, training = raw.get("data"), raw.get("training", {})
    pictures = isinstance(data, Mapping) and data.get("task", "language_modeling") != "language_modeling"
    if not ours or "quantization" in raw or pictures or not isinstance(training, Mapping):
        return {}
    settled = training.get("start", "model") not in STARTS
    added = {key: value for key, value in ours.items() if key != "allocation" or not settled}
    return {"training": {**copy.deepcopy(added), **training}}


def _suit(filled: dict[str, Any], adapter: type[AdapterParams]) -> None:
    """Leave out what the family does not have, and take its own choice of layers, in place."""
    quantization = filled["quantization"]
    if not adapter.caches_keys:
        quantization["kv_cache"] = None
        quantization["fit"] = [key for key in quantization["fit"] if key != "kv_cache"]
    if adapter.layers is not None:
        filled["distillation"]["losses"][1]["layers"] = dict(adapter.layers)


def _fill(template: dict[str, Any], sizes: GroupSizes, weights: PresetWeights, fit: Sequence[str]) -> dict[str, Any]:
    filled = copy.deepcopy(template)
    quantization, distillation = filled["quantization"], filled["distillation"]
    for rule in quantization["weights"]:
        rule["quantizer"]["group_size"] = sizes.weights
    quantization["activations"]["group_size"] = sizes.activations
    quantization["kv_cache"]["group_size"] = sizes.kv_cache
    quantization["fit"] = list(fit)
    distillation["task_weight"] = weights.task
    for loss, weight in zip(distillation["losses"], (weights.eakld, weights.feature), strict=True):
        loss.setdefault("weight", weight)
    return filled
