"""Rotary embeddings and windows as keys and tensors of the format."""

import math
from typing import Any

import numpy as np
from gguf import MODEL_TENSOR, TENSOR_NAMES
from numpy.typing import NDArray

from edgerazor.core.contracts import GGUFArchitecture, ModelFacts, Rope
from edgerazor.plugins.exporters.model_facts import distinct_ropes, name_layers, short_windows

Constants = dict[str, NDArray[np.float32]]

_IN_KEYS = ("default", "linear", "yarn")
_YARN_KEYS = {"beta_fast": "yarn_beta_fast", "beta_slow": "yarn_beta_slow"}


def global_rope(facts: ModelFacts, architecture: GGUFArchitecture) -> Rope | None:
    """The rotary embedding of layers that see all positions, where layers with windows may have another."""
    ropes = _ropes(facts, architecture, local=False)
    return ropes[0] if ropes else facts.rope


def unsupported_positions(facts: ModelFacts, architecture: GGUFArchitecture, context: int) -> list[str]:
    """A line for everything about rotation and windows that the graph of an architecture does not compute."""
    problems = []
    windows, sizes = short_windows(facts, context), {window for window in facts.windows if window}
    for size in dict.fromkeys(windows.values()):
        if architecture.window_period and len(sizes) == 1:
            continue
        layers = name_layers([layer for layer, window in windows.items() if window == size])
        problems.append(
            f"window {size} on {layers}: llama.cpp has none for this architecture; set context_length to {size}"
        )
    unrotated = [layer for layer, rope in enumerate(facts.ropes) if rope is None]
    every = architecture.unrotated_every
    expected = [layer for layer in range(facts.layers) if every and (layer + 1) % every == 0]
    if unrotated != expected:
        problems.append(
            f"without rotary embedding: {name_layers(unrotated)}; llama.cpp expects {name_layers(expected)}"
        )
    return problems + _unsupported_ropes(facts, architecture)


def _unsupported_ropes(facts: ModelFacts, architecture: GGUFArchitecture) -> list[str]:
    chosen, problems = global_rope(facts, architecture), []
    local, others = (_ropes(facts, architecture, local=local) for local in (True, False))
    if len(local) > 1 or len(others) > 1:
        problems.append("layers with rotary embeddings of their own are not supported")
    tensors = {"llama3": architecture.frequencies, "longrope": architecture.long_frequencies}
    kinds = [*_IN_KEYS, *(kind for kind, known in tensors.items() if known)]
    if chosen is not None and chosen.kind not in kinds:
        problems.append(f"rope_type '{chosen.kind}' is not supported; expected {' or '.join(kinds)}")
    for rope in local:
        if rope.kind != "default" or rope.partial != 1.0:
            problems.append(f"rope_type '{rope.kind}' of layers with a window is not supported; expected 'default'")
            break
    if chosen is not None and chosen.partial != 1.0 and not architecture.partial_rotation:
        problems.append(
            f"partial_rotary_factor {chosen.partial} is not supported; every column of a head must be rotated"
        )
    return problems


def rotation_keys(facts: ModelFacts, architecture: GGUFArchitecture) -> tuple[dict[str, Any], Constants]:
    """Keys behind the name of the architecture, and tensors that no checkpoint holds."""
    rope = global_rope(facts, architecture)
    if rope is None:
        return {}, {}
    keys: dict[str, Any] = {"rope.freq_base": rope.base}
    if architecture.permuted or rope.partial != 1.0:
        keys["rope.dimension_count"] = int(facts.head_dim * rope.partial)
    if rope.sections:
        keys["rope.dimension_sections"] = [*rope.sections, 0, 0, 0, 0][:4]
    if architecture.window_period:
        keys |= _window_keys(facts, architecture)
    scaling = {"linear": _linear, "yarn": _yarn, "llama3": _llama3, "longrope": _longrope}.get(rope.kind)
    more, constants = scaling(facts, rope) if scaling else ({}, {})
    return keys | more, constants


def _window_keys(facts: ModelFacts, architecture: GGUFArchitecture) -> dict[str, Any]:
    local = _ropes(facts, architecture, local=True)
    if not local:
        return {"attention.sliding_window": 0}
    keys: dict[str, Any] = {
        "attention.sliding_window": next(window for window in facts.windows if window),
        "rope.freq_base_swa": local[0].base,
    }
    slides = [window is not None for window in facts.windows]
    usual = [(layer + 1) % architecture.window_period > 0 for layer in range(facts.layers)]
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


def _ropes(facts: ModelFacts, architecture: GGUFArchitecture, *, local: bool) -> list[Rope]:
    """Rotary embeddings of the layers whose window brings a rotation of its own, or of the others."""
    layers = zip(facts.ropes, facts.windows, strict=True)
    return distinct_ropes(rope for rope, window in layers if bool(architecture.window_period and window) is local)
