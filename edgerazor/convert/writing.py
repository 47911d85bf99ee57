"""A recipe as YAML that reads like one written by hand: a rule, a quantizer or a loss on one line."""

from typing import Any

import yaml


class _OneLine(dict[str, Any]):
    """A mapping that is written in braces."""


class _Dumper(yaml.SafeDumper):
    pass


_Dumper.add_representer(_OneLine, lambda dumper, value: dumper.represent_mapping("tag:yaml.org,2002:map", value, True))


def to_yaml(recipe: dict[str, Any]) -> str:
    """The recipe as YAML; reading it again gives the same."""
    content = {key: dict(value) if isinstance(value, dict) else value for key, value in recipe.items()}
    content["model"] = _OneLine(content["model"])
    quantization = content["quantization"]
    for key, value in quantization.items():
        quantization[key] = [_OneLine(rule) for rule in value] if key == "weights" else value and _OneLine(value)
    if "distillation" in content:
        content["distillation"]["losses"] = [_OneLine(loss) for loss in content["distillation"]["losses"]]
    return yaml.dump(content, Dumper=_Dumper, sort_keys=False, width=200, allow_unicode=True)
