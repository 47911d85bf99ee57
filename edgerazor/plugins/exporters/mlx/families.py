"""What the model classes of mlx_lm compute, and the configuration that a class is to read, from the facts of a model.

mlx_lm takes the class that `model_type` names and skips keys that the class does not know without a word: what a class
does not compute must be refused here.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from edgerazor.core.contracts import ModelFacts
from edgerazor.plugins.exporters.mlx.rotary import KINDS, describe_rope
from edgerazor.plugins.exporters.model_facts import distinct_ropes, name_layers, short_windows

_PLAIN = {"embedding_scale": 1.0, "residual_scale": 1.0, "logit_scale": 1.0}


@dataclass(frozen=True)
class ModelClass:
    """A model class of mlx_lm; biases and shapes are compared with its parameters.

    Attributes:
        facts: those that it fixes, with their values.
        scales: facts that its configuration states; others must be as usual.
        partial: a head may be rotated in part.
        scalings: kinds of rotary embeddings.
        unrotated: its configuration says which layers do not rotate.
        windows: "none"; "some": of one size, not in every layer; "period": every so many layers one sees all positions,
            the others a window, where they rotate in another way.
        keys: of the configuration, beyond those of every class.
    """

    facts: Mapping[str, Any]
    scales: frozenset[str] = frozenset()
    partial: bool = False
    scalings: Sequence[str] = KINDS
    unrotated: bool = False
    windows: Literal["none", "some", "period"] = "none"
    keys: Callable[[ModelFacts], Mapping[str, Any]] = lambda facts: {}


def _facts(**changed: Any) -> dict[str, Any]:
    usual = {"activation": "silu", "norms": "pre", "qk_norm": "none", "norm_offset": 0.0}
    never = {"logit_softcap": None, "attention_softcap": None, "repeats": 1, "experts": 0, "towers": ()}
    return {**usual, **never, **changed}


def _window_period(facts: ModelFacts) -> int | None:
    """Every so many layers one sees all positions; None if there is no such number."""
    whole = [window is None for window in facts.windows]
    fits = (n for n in range(1, len(whole) + 1) if whole == [(layer + 1) % n == 0 for layer in range(len(whole))])
    return next(fits, None)


def _gemma3_keys(facts: ModelFacts) -> dict[str, Any]:
    local = next((rope for rope, window in zip(facts.ropes, facts.windows, strict=True) if window), None)
    return {
        "sliding_window_pattern": _window_period(facts),
        "sliding_window": next((window for window in facts.windows if window), None),
        "query_pre_attn_scalar": round((facts.attention_scale or 1.0) ** -2, 6),
        **({"rope_local_base_freq": local.base} if local else {}),
    }


def _granite_keys(facts: ModelFacts) -> dict[str, Any]:
    return {
        "embedding_multiplier": facts.embedding_scale,
        "attention_multiplier": facts.attention_scale,
        "residual_multiplier": facts.residual_scale,
        "logits_scaling": 1 / facts.logit_scale,
    }


def _layer_keys(facts: ModelFacts) -> dict[str, Any]:
    short = short_windows(facts, facts.context)
    if not any(facts.windows):
        return {}
    types = ("sliding_attention" if layer in short else "full_attention" for layer in range(facts.layers))
    return {"layer_types": list(types), "sliding_window": next(iter(short.values()), None)}


def _smollm3_keys(facts: ModelFacts) -> dict[str, Any]:
    return {**_layer_keys(facts), "no_rope_layers": [int(rope is not None) for rope in facts.ropes]}


def _phi3_keys(facts: ModelFacts) -> dict[str, Any]:
    rope = next(iter(distinct_ropes(facts.ropes)))
    original = rope.scaling.get("original_max_position_embeddings") or facts.context
    return {"partial_rotary_factor": rope.partial, "original_max_position_embeddings": original}


_PLAIN_CLASS = ModelClass(_facts())
_LLAMA = ModelClass(_facts(), windows="some", keys=_layer_keys)
MODEL_CLASSES: Mapping[str, ModelClass] = {
    "llama": _LLAMA,
    "mistral": _LLAMA,
    "qwen2": _PLAIN_CLASS,
    "qwen3": ModelClass(_facts(qk_norm="per_head")),
    "smollm3": ModelClass(_facts(), windows="some", unrotated=True, keys=_smollm3_keys),
    "olmo2": ModelClass(_facts(norms="post", qk_norm="all_heads")),
    "granite": ModelClass(_facts(), scales=frozenset({*_PLAIN, "attention_scale"}), keys=_granite_keys),
    "phi3": ModelClass(_facts(), partial=True, scalings=("default", "longrope"), keys=_phi3_keys),
    "gemma3_text": ModelClass(
        _facts(activation="gelu_pytorch_tanh", norms="sandwich", qk_norm="per_head", norm_offset=1.0),
        scales=frozenset({"embedding_scale", "attention_scale"}),
        windows="period",
        keys=_gemma3_keys,
    ),
}


def describe_model(facts: ModelFacts, name: str) -> tuple[dict[str, Any], list[str]]:
    """Keys of the configuration that a class is to read, and a line for every fact that it does not compute.

    Args:
        facts: of the model.
        name: of the class, a key of `MODEL_CLASSES`.
    """
    known = MODEL_CLASSES[name]
    problems = [*_other_facts(facts, name, known), *_other_windows(facts, name, known)]
    turned, scaling, rope_problems = _rope_keys(facts, name, known)
    problems += rope_problems
    keys = {
        "hidden_size": facts.hidden,
        "num_hidden_layers": facts.layers,
        "intermediate_size": facts.intermediate,
        "num_attention_heads": facts.heads,
        "num_key_value_heads": facts.kv_heads,
        "head_dim": facts.head_dim,
        "vocab_size": facts.vocab,
        "max_position_embeddings": facts.context,
        "rms_norm_eps": facts.norm_eps,
        "tie_word_embeddings": facts.tied,
        "attention_bias": "o" in facts.biases,
        "mlp_bias": "down" in facts.biases,
        "rope_theta": turned,
        "rope_scaling": scaling,
    }
    return {**keys, **({} if problems else known.keys(facts))}, problems


def _other_facts(facts: ModelFacts, name: str, known: ModelClass) -> Iterator[str]:
    for fact, fixed in known.facts.items():
        if (stated := getattr(facts, fact)) != fixed:
            yield f"{fact} {_shown(stated)}: mlx_lm's {name} computes with {_shown(fixed)}"
    usual = {**_PLAIN, "attention_scale": facts.head_dim**-0.5}
    for fact, value in usual.items():
        stated = getattr(facts, fact)
        if fact not in known.scales and stated not in (None, value):
            yield f"{fact} {stated:g}: mlx_lm's {name} computes with {value:g}"
    if known.windows == "period" and facts.embedding_scale != facts.hidden**0.5:
        yield f"embedding_scale {facts.embedding_scale:g}: mlx_lm's {name} computes with {facts.hidden**0.5:g}"


def _other_windows(facts: ModelFacts, name: str, known: ModelClass) -> Iterator[str]:
    stated = ", ".join("all" if window is None else str(window) for window in facts.windows)
    if known.windows == "period":
        if len({window for window in facts.windows if window}) > 1 or _window_period(facts) is None:
            yield f"windows {stated}: mlx_lm's {name} sees all positions in every n-th layer and one window elsewhere"
        return
    short = short_windows(facts, facts.context)
    if short and known.windows == "none":
        first = next(iter(short.values()))
        yield f"window {first} on {name_layers(list(short))}: mlx_lm's {name} attends to all positions in every layer"
    elif len(set(short.values())) > 1 or len(short) == facts.layers:
        yield f"windows {stated}: mlx_lm's {name} takes windows of one size, and a layer at least that has none"


def _rope_keys(facts: ModelFacts, name: str, known: ModelClass) -> tuple[float, dict[str, Any] | None, list[str]]:
    """Base, scaling and problems of the layers that see all positions, or of all where a class knows one rotation."""
    period = known.windows == "period"
    places: Iterable[tuple[Any, Any]] = zip(facts.ropes, facts.windows, strict=True)
    local = distinct_ropes(rope for rope, window in places if period and window is not None)
    places = zip(facts.ropes, facts.windows, strict=True)
    whole = distinct_ropes(rope for rope, window in places if not period or window is None)
    problems = []
    if not known.unrotated and None in facts.ropes:
        layers = [layer for layer, rope in enumerate(facts.ropes) if rope is None]
        problems.append(f"no rotation on {name_layers(layers)}: mlx_lm's {name} rotates in every layer")
    if len(whole) > 1 or len(local) > 1:
        problems.append(f"rope_parameters that differ by layer: mlx_lm's {name} has one rotation for all")
    if local and local[0].kind != "default":
        problems.append(f"rope_type '{local[0].kind}' in layers with a window: mlx_lm's {name} scales none there")
    for rope in whole:
        if rope.kind in KINDS and rope.kind not in known.scalings:
            problems.append(f"rope_type '{rope.kind}': mlx_lm's {name} knows {', '.join(known.scalings)}")
    for rope in (*whole, *local):
        if rope.partial != 1 and not known.partial:
            problems.append(f"partial_rotary_factor {rope.partial:g}: mlx_lm's {name} rotates whole heads")
    if not whole:
        return 10000.0, None, problems
    scaling, more = describe_rope(whole[0], facts.context)
    return whole[0].base, scaling, problems + more


def _shown(value: Any) -> str:
    return "none" if value in (None, ()) else ", ".join(value) if isinstance(value, tuple) else str(value)
