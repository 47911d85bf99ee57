"""Rotary embeddings and windows as keys and tensors of the format."""

import math
from typing import Any

import numpy as np
from gguf import MODEL_TENSOR, TENSOR_NAMES
from numpy.typing import NDArray

from edgerazor.core.contracts import ModelFacts, Rope
from edgerazor.plugins.exporters.gguf.graphs import Graph
from edgerazor.plugins.exporters.model_facts import name_layers, short_windows

Constants = dict[str, NDArray[np.float32]]

_GEMMA_PERIOD = 6
_IN_KEYS = ("default", "linear", "yarn")
_YARN_KEYS = {"beta_fast": "yarn_beta_fast", "beta_slow": "yarn_beta_slow"}


def global_rope(facts: ModelFacts, graph: Graph) -> Rope | None:
    """The rotary embedding of layers that see all positions, where layers with windows may have another."""
    rotating = [rope for rope, window in _layers(facts) if rope and not (graph.windows and window)]
    return rotating[0] if rotating else facts.rope


def unsupported_positions(facts: ModelFacts, graph: Graph, context: int) -> list[str]:
    """A line for everything about rotation and windows that the graph of an architecture does not compute."""
    problems = []
    windows = short_windows(facts, context)
    if windows and not (graph.windows and len({window for window in facts.windows if window}) == 1):
        problems += [
            f"window {window} on {name_layers(layers)}: llama.cpp has none for this architecture; "
            f"set context_length to {window}"
            for window, layers in windows.items()
        ]
    still = [layer for layer, rope in enumerate(facts.ropes) if rope is None]
    every = graph.still_every
    expected = [layer for layer in range(facts.layers) if every and (layer + 1) % every == 0]
    if still != expected:
        wanted = f"llama.cpp rotates none on {name_layers(expected)}" if expected else "every layer must rotate"
        problems.append(f"no rotary embedding on {name_layers(still) if still else 'no layer'}; {wanted}")
    problems += _unsupported_ropes(facts, graph)
    return problems


def _unsupported_ropes(facts: ModelFacts, graph: Graph) -> list[str]:
    chosen = global_rope(facts, graph)
    local = {rope for rope, window in _hashable(facts) if window and graph.windows}
    others = {rope for rope, window in _hashable(facts) if not (window and graph.windows)}
    problems = []
    if len(local) > 1 or len(others) > 1:
        problems.append("layers with rotary embeddings of their own are not supported")
    kinds = [*_IN_KEYS, *(["llama3"] if graph.frequencies else []), *(["longrope"] if graph.long_frequencies else [])]
    if chosen is not None and chosen.kind not in kinds:
        problems.append(f"rope_type '{chosen.kind}' is not supported; expected {' or '.join(kinds)}")
    for rope, window in _layers(facts):
        if rope and window and graph.windows and (rope.kind != "default" or rope.partial != 1.0):
            problems.append(f"rope_type '{rope.kind}' of layers with a window is not supported; expected 'default'")
            break
    if chosen is not None and chosen.partial != 1.0 and not graph.partial:
        problems.append(
            f"partial_rotary_factor {chosen.partial} is not supported; every column of a head must be rotated"
        )
    return problems


def rotation_keys(facts: ModelFacts, graph: Graph, context: int) -> tuple[dict[str, Any], Constants]:
    """Keys behind the name of the architecture, and tensors that no checkpoint holds."""
    rope = global_rope(facts, graph)
    if rope is None:
        return {}, {}
    keys: dict[str, Any] = {"rope.freq_base": rope.base}
    if rope.partial != 1.0:
        keys["rope.dimension_count"] = int(facts.head_dim * rope.partial)
    if rope.sections:
        keys["rope.dimension_sections"] = [*rope.sections, 0, 0, 0, 0][:4]
    if graph.windows:
        keys |= _window_keys(facts, context)
    scaling = {"linear": _linear, "yarn": _yarn, "llama3": _llama3, "longrope": _longrope}.get(rope.kind)
    more, constants = scaling(facts, rope) if scaling else ({}, {})
    return keys | more, constants


def _window_keys(facts: ModelFacts, context: int) -> dict[str, Any]:
    local = [rope for rope, window in _layers(facts) if window and rope]
    if not local:
        return {"attention.sliding_window": 0}
    keys: dict[str, Any] = {
        "attention.sliding_window": next(window for window in facts.windows if window),
        "rope.freq_base_swa": local[0].base,
    }
    slides = [window is not None for window in facts.windows]
    usual = [layer % _GEMMA_PERIOD < _GEMMA_PERIOD - 1 for layer in range(facts.layers)]
    # Releases of before this key could be a list know the usual pattern alone.
    return keys if slides == usual else {**keys, "attention.sliding_window_pattern": slides}


def _linear(facts: ModelFacts, rope: Rope) -> tuple[dict[str, Any], Constants]:
    return {"rope.scaling.type": "linear", "rope.scaling.factor": float(rope.scaling["factor"])}, {}


def _yarn(facts: ModelFacts, rope: Rope) -> tuple[dict[str, Any], Constants]:
    scaling, factor = rope.scaling, float(rope.scaling["factor"])
    usual = 0.1 * math.log(factor) + 1.0 if factor > 1 else 1.0  # what llama.cpp multiplies by itself
    wanted = scaling.get("attention_factor")
    if wanted is None and scaling.get("mscale") and scaling.get("mscale_all_dim"):
        over, under = (0.1 * scaling[name] * math.log(factor) + 1.0 for name in ("mscale", "mscale_all_dim"))
        wanted = over / under if factor > 1 else 1.0
    keys: dict[str, Any] = {
        "rope.scaling.type": "yarn",
        "rope.scaling.factor": factor,
        "rope.scaling.original_context_length": _original(facts, rope),
    }
    keys |= {f"rope.scaling.{key}": float(scaling[name]) for name, key in _YARN_KEYS.items() if scaling.get(name)}
    return keys if wanted is None else {**keys, "rope.scaling.attn_factor": float(wanted) / usual}, {}


def _llama3(facts: ModelFacts, rope: Rope) -> tuple[dict[str, Any], Constants]:
    """What divides each frequency: 1 for short wavelengths, `factor` for long ones, between them in between."""
    low, high = float(rope.scaling["low_freq_factor"]), float(rope.scaling["high_freq_factor"])
    factor, original = float(rope.scaling["factor"]), _original(facts, rope)
    columns = int(facts.head_dim * rope.partial)
    wavelengths = 2 * math.pi * rope.base ** (np.arange(0, columns, 2, dtype=np.float64) / columns)
    smooth = np.clip((original / wavelengths - low) / (high - low), 0.0, 1.0)
    divisors = 1 / ((1 - smooth) / factor + smooth)
    return {}, {_tensor(MODEL_TENSOR.ROPE_FREQS): divisors.astype(np.float32)}


def _longrope(facts: ModelFacts, rope: Rope) -> tuple[dict[str, Any], Constants]:
    original = _original(facts, rope)
    ratio = facts.context / original
    usual = math.sqrt(1 + math.log(ratio) / math.log(original)) if ratio > 1 else 1.0
    keys = {
        "rope.scaling.original_context_length": original,
        "rope.scaling.attn_factor": float(rope.scaling.get("attention_factor") or usual),
    }
    tensors = {MODEL_TENSOR.ROPE_FACTORS_LONG: "long_factor", MODEL_TENSOR.ROPE_FACTORS_SHORT: "short_factor"}
    return keys, {_tensor(kind): np.asarray(rope.scaling[name], np.float32) for kind, name in tensors.items()}


def _original(facts: ModelFacts, rope: Rope) -> int:
    return int(rope.scaling.get("original_max_position_embeddings") or facts.context)


def _tensor(kind: MODEL_TENSOR) -> str:
    return f"{TENSOR_NAMES[kind]}.weight"


def _layers(facts: ModelFacts) -> list[tuple[Rope | None, int | None]]:
    return list(zip(facts.ropes, facts.windows, strict=True))


def _hashable(facts: ModelFacts) -> list[tuple[str, int | None]]:
    return [(repr(rope), window) for rope, window in _layers(facts) if rope is not None]
