"""A whole configuration file of the original becomes a whole recipe, or a list of all that stands in the way."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from edgerazor.convert.losses import distillation_of, router_notes
from edgerazor.convert.quantizers import DEFAULT_WEIGHT, check_epsilon, state_quantizer
from edgerazor.convert.reading import Entry, Findings, OldSection, check_method, note_log_level, training_of
from edgerazor.convert.rules import RuleMaker
from edgerazor.convert.selection import Override, Selection, is_pattern, read_selection
from edgerazor.core.registry import Registry
from edgerazor.errors import RecipeError
from edgerazor.schemas.files import read_mapping
from edgerazor.schemas.messages import describe
from edgerazor.schemas.recipe import load_recipe

PLACEHOLDER = "path/to/model"
_SECTIONS = {"qat_configuration": "QAT", "kd_configuration": "KD"}
_DEFAULTS: dict[str, Any] = {
    "epsilon": 1e-5,
    "weight_function": DEFAULT_WEIGHT,
    "w_scale_factor": -1,
    "w_block_size": -1,
    "w_mixed_precision_prop": -1,
    "is_w_quantized": False,
    "activation_function": None,
    "a_block_size": -1,
    "a_mixed_precision_prop": -1,
    "kv_cache_function": None,
    "kv_block_size": -1,
    "kv_mixed_precision_prop": -1,
}


@dataclass(frozen=True)
class ConversionResult:
    """A recipe made from a configuration of the original.

    Attributes:
        recipe: as plain data; `load_recipe` takes it.
        notes: what changed without harm, or is missing because the original keeps it elsewhere; one line each.
    """

    recipe: dict[str, Any]
    notes: tuple[str, ...]

    def to_yaml(self) -> str:
        """The recipe as YAML that reads like one written by hand; reading it again gives the same."""
        return _to_yaml(self.recipe)


def convert_file(path: Path, *, registry: Registry, model: str | None = None) -> ConversionResult:
    """Convert a YAML or JSON file; see `convert_recipe`."""
    content = read_mapping(path, expected="a section qat_configuration and perhaps kd_configuration")
    try:
        return convert_recipe(content, registry=registry, model=model)
    except RecipeError as error:
        raise RecipeError([f"{path}: {line}" for line in error.problems]) from None


def convert_recipe(old: Mapping[str, Any], *, registry: Registry, model: str | None = None) -> ConversionResult:
    """Turn a configuration of the original release 1.3.5 into a recipe.

    Args:
        old: `qat_configuration` with or without `kd_configuration`, or the content of the former alone.
        registry: components are looked up there.
        model: `model.name_or_path` of the recipe, which the original's file does not hold; None writes a placeholder.

    Raises:
        RecipeError: with one line per key that has no counterpart.
    """
    findings = Findings()
    sections = _sections(old, findings)
    recipe: dict[str, Any] = {"model": {"name_or_path": model or PLACEHOLDER}}
    if "QAT" in sections:
        _convert_quantization(sections["QAT"], recipe, registry, findings)
    if "KD" in sections:
        section = sections["KD"]
        check_method(section, "KD", findings)
        note_log_level(section, findings)
        router_notes(section, findings)
        recipe["distillation"] = distillation_of(section, registry, findings)
        section.refuse_the_rest()
    if findings.problems:
        raise RecipeError(findings.problems)
    if model is None:
        findings.note("model.name_or_path", f"the original names its model elsewhere; '{PLACEHOLDER}' stands for it")
    findings.note(
        "data, training",
        "the original keeps them in its programs, so there are none yet; recipes/ has the published ones",
    )
    load_recipe(recipe, registry=registry)
    return ConversionResult(recipe, tuple(findings.notes))


def _sections(old: Mapping[str, Any], findings: Findings) -> dict[str, OldSection]:
    """The two sections by method, whether they are wrapped or one of them is the whole file."""
    whole = OldSection(old, "", findings)
    if {"quantization", "preset"} & set(old) and not set(_SECTIONS) & set(old):
        raise RecipeError("is a recipe already; `edgerazor check` reads it")
    found = {method: OldSection(whole.get(key).value, key, findings) for key, method in _SECTIONS.items() if key in old}
    if found:
        note_log_level(whole, findings)
        whole.get("method")
        whole.refuse_the_rest()
    elif str(old.get("method", "")).upper() == "KD" or any(str(key).startswith("loss_") for key in old):
        found["KD"] = whole
    elif str(old.get("method", "")).upper() == "QAT" or {"select", "function"} & set(old):
        found["QAT"] = whole
    else:
        raise RecipeError("expected a section qat_configuration and perhaps kd_configuration; neither is there")
    if "QAT" not in found:
        findings.problem(
            "qat_configuration",
            "is absent, and a recipe says what is quantized; put both configurations of the original into one file",
        )
    return found


def _convert_quantization(section: OldSection, recipe: dict[str, Any], registry: Registry, findings: Findings) -> None:
    check_method(section, "QAT", findings)
    note_log_level(section, findings)
    training = training_of(section, findings)
    function = section.get("function", {})
    inner = OldSection(function.value, function.path, findings)
    base = {key: inner.get(key, default) for key, default in _DEFAULTS.items()}
    inner.refuse_the_rest()
    check_epsilon(base["epsilon"], findings)
    overrides = _overrides(section.get("overrides", []), findings)
    select = section.get("select", {})
    selection = read_selection(OldSection(select.value, select.path, findings), overrides, findings)
    section.refuse_the_rest()
    before = len(findings.problems)
    rules = RuleMaker(selection, base, overrides, path=select.path, registry=registry, findings=findings).rules()
    activations = state_quantizer(base, "a", registry, findings)
    _check_override_states(selection, overrides, base, registry, findings)
    kv_cache = state_quantizer(base, "kv", registry, findings)
    if kv_cache is not None and not selection.kv_cache:
        findings.note(f"{select.path}.target_types", "names neither attention nor kv_cache; keys and values stay float")
        kv_cache = None
    if not rules and len(findings.problems) == before:
        if kv_cache is None:
            findings.problem(f"{select.path}.target_types", "selects nothing, so nothing would be quantized")
        if activations is not None:
            findings.note(base["activation_function"].path, "acts on quantized linear layers, of which there are none")
        rules, activations = [(["*"], None)], None
    weights = [{"match": globs if len(globs) > 1 else globs[0], "quantizer": made} for globs, made in rules]
    recipe["quantization"] = {"weights": weights, "activations": activations, "kv_cache": kv_cache}
    if training:
        recipe["training"] = training


def _overrides(written: Entry, findings: Findings) -> list[Override]:
    items = [] if written.value is None else written.value
    if not isinstance(items, list):
        findings.problem(written.path, f"expected a list, got {describe(items)}")
        return []
    found = []
    for index, item in enumerate(items):
        section = OldSection(item, f"{written.path}[{index}]", findings)
        kind, pattern = section.get("type").value, section.get("name")
        settings = {key: section.get(key) for key in _DEFAULTS if key in section}
        section.refuse_the_rest(also=_DEFAULTS)
        if "epsilon" in settings:
            check_epsilon(settings["epsilon"], findings)
        if pattern.value is not None and not is_pattern(pattern, findings):
            continue
        found.append(Override(section.path, kind, pattern if pattern.value is not None else None, settings))
    return found


def _check_override_states(
    selection: Selection,
    overrides: list[Override],
    base: Mapping[str, Entry],
    registry: Registry,
    findings: Findings,
) -> None:
    """An override may not change activations: a recipe has one quantizer for those of all linear layers."""
    usual = state_quantizer(base, "a", registry, findings)
    for override in overrides:
        merged = {**base, **override.settings}
        for key in override.settings:
            if key.startswith("kv_"):
                findings.note(override.settings[key].path, "acts on attention, not in an override; left out")
        mine = [key for key in override.settings if key.startswith("a")]
        linear = any(module.kind == "linear" and override.takes(module) for module in selection.modules)
        if mine and linear and state_quantizer(merged, "a", registry, findings) != usual:
            findings.problem(
                override.settings[mine[0]].path,
                "a recipe has one quantizer for all activations",
            )


class _OneLine(dict[str, Any]):
    """A mapping that is written in braces."""


class _Dumper(yaml.SafeDumper):
    pass


_Dumper.add_representer(_OneLine, lambda dumper, value: dumper.represent_mapping("tag:yaml.org,2002:map", value, True))


def _to_yaml(recipe: dict[str, Any]) -> str:
    """A rule, a quantizer or a loss on one line."""
    content = {key: dict(value) if isinstance(value, dict) else value for key, value in recipe.items()}
    content["model"] = _OneLine(content["model"])
    quantization = content["quantization"]
    for key, value in quantization.items():
        quantization[key] = [_OneLine(rule) for rule in value] if key == "weights" else value and _OneLine(value)
    if "distillation" in content:
        content["distillation"]["losses"] = [_OneLine(loss) for loss in content["distillation"]["losses"]]
    return yaml.dump(content, Dumper=_Dumper, sort_keys=False, width=200, allow_unicode=True)
