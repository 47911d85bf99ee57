"""Rotary embeddings as configurations of mlx_lm state them."""

import math
from collections.abc import Mapping
from typing import Any

from edgerazor.core.contracts import Rope

KINDS = ("default", "linear", "llama3", "yarn", "longrope")
_ORIGINAL = "original_max_position_embeddings"


def describe_rope(rope: Rope, context: int) -> tuple[dict[str, Any] | None, list[str]]:
    """The `rope_scaling` of a configuration, and what of the rotary embedding it cannot say.

    mlx_lm takes the long factors of "longrope" in every text, transformers in those beyond the original positions: the
    short ones stand in place of both, so that texts up to there are turned alike.

    Args:
        rope: of a layer.
        context: positions that the model was made for.
    """
    try:
        return _describe(rope, context)
    except (TypeError, ValueError, ArithmeticError):
        return None, [f"rope_parameters: holds a value that is no number: {dict(rope.scaling)}"]


def _describe(rope: Rope, context: int) -> tuple[dict[str, Any] | None, list[str]]:
    kind, scaling = rope.kind, dict(rope.scaling)
    if kind not in KINDS:
        return None, [f"rope_type '{kind}': mlx_lm computes it otherwise; known: {', '.join(KINDS)}"]
    if rope.sections:
        return None, ["mrope_section: mlx_lm turns the columns of all sections by the same position"]
    if kind == "default":
        return None, []
    problems = []
    if kind == "longrope":
        problems += _unlike_longrope(scaling, context)
        scaling = {_ORIGINAL: scaling.get(_ORIGINAL), **dict.fromkeys(_FACTORS, scaling.get("short_factor"))}
    if kind == "yarn":
        if scaling.pop("truncate", True) is False:
            problems.append("rope_parameters.truncate false: mlx_lm rounds the range of yarn's ramp")
        scaling = _yarn(scaling, context)
        if scaling["factor"] <= 1 and rope.scaling.get("attention_factor") not in (None, 1):
            problems.append("rope_parameters.attention_factor: mlx_lm has no such key for a factor of at most 1")
    return {"type": kind, "rope_type": kind, **scaling}, problems


def positions_of_one_rotation(rope_scaling: Mapping[str, Any] | None, context: int) -> int:
    """Longest text that mlx_lm turns as transformers does, by the `rope_scaling` of an exported configuration."""
    scaling = rope_scaling or {}
    return min(context, int(scaling[_ORIGINAL])) if scaling.get("type") == "longrope" else context


_FACTORS = ("short_factor", "long_factor")


def _unlike_longrope(scaling: Mapping[str, Any], context: int) -> list[str]:
    """mlx_lm has no key for what queries and keys are multiplied by; it follows from both numbers of positions."""
    original, factor = scaling.get(_ORIGINAL), scaling.get("factor")
    if not original or not scaling.get("short_factor"):
        return [f"rope_parameters: longrope needs {_ORIGINAL} and short_factor"]
    problems = []
    if scaling.get("attention_factor") is not None:
        problems.append("rope_parameters.attention_factor: mlx_lm has no such key for longrope")
    if factor is not None and factor != context / original:
        problems.append(f"rope_parameters.factor {factor}: mlx_lm takes {context} / {original} positions")
    return problems


def _yarn(scaling: dict[str, Any], context: int) -> dict[str, Any]:
    """As mlx_lm names it: what queries and keys are multiplied by is 0.1 * mscale * log(factor) + 1."""
    original = scaling.get(_ORIGINAL) or context
    factor = float(scaling.get("factor") or context / original)
    both = bool(scaling.get("mscale") and scaling.get("mscale_all_dim"))
    names = ("beta_fast", "beta_slow", *(("mscale", "mscale_all_dim") if both else ()))
    stated = {name: scaling[name] for name in names if scaling.get(name) is not None}
    attention = scaling.get("attention_factor")
    if attention is not None and factor > 1:
        stated |= {"mscale": (float(attention) - 1) / (0.1 * math.log(factor)), "mscale_all_dim": 0}
    return {"factor": factor, _ORIGINAL: original, **stated}
