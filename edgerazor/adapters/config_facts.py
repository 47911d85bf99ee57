"""Facts of a decoder from the keys that configurations of transformers share, of version 5 and before."""

from collections.abc import Mapping
from typing import Any

from huggingface_hub.errors import StrictDataclassError
from transformers import CONFIG_MAPPING

from edgerazor.core.contracts import ModelFacts, Rope
from edgerazor.errors import CheckpointError

_SIZES = {
    "context": "max_position_embeddings",
    "hidden": "hidden_size",
    "layers": "num_hidden_layers",
    "intermediate": "intermediate_size",
    "heads": "num_attention_heads",
    "vocab": "vocab_size",
}
_EPSILON, _THETA = "rms_norm_eps", "rope_theta"
_NO_SCALING = {_THETA, "rope_type", "type", "partial_rotary_factor", "mrope_section"}


def config_values(config: Any) -> Mapping[str, Any]:
    """The content of config.json, of a transformers configuration as of a mapping."""
    values: Mapping[str, Any] = config if isinstance(config, Mapping) else config.to_dict()
    return values


def text_values(config: Any) -> Mapping[str, Any]:
    """The part of a configuration that describes the text model; it says `tie_word_embeddings` if the whole does."""
    values = config_values(config)
    text = values.get("text_config")
    if not isinstance(text, Mapping):
        return values
    whole = {key: values[key] for key in ("tie_word_embeddings",) if key in values}
    return {**text, **whole}


def completed_values(config: Any) -> Mapping[str, Any]:
    """`text_values` as the class of the model type reads them: old keys by their new names, defaults filled in.

    What the class refuses stays as it is; loading the model says why.
    """
    values = text_values(config)
    if not isinstance(config, Mapping) or values.get("model_type") not in CONFIG_MAPPING:
        return values
    try:
        return config_values(CONFIG_MAPPING[values["model_type"]].from_dict(dict(values)))
    except (StrictDataclassError, TypeError, ValueError, AttributeError, LookupError):
        return values


def decoder_facts(config: Any) -> ModelFacts:
    """What the shared keys say; a family adds by `dataclasses.replace` what they do not.

    Args:
        config: the content of config.json, or the transformers configuration made from it.

    Raises:
        CheckpointError: keys are missing or hold no numbers; there is a line for each.
    """
    values = text_values(config)
    problems = [f"config.json: {key} is missing" for key in (*_SIZES.values(), _EPSILON) if values.get(key) is None]
    values = values if problems else completed_values(config)
    rope = _rope_parameters(values)
    if not all(_theta(parameters, values) for parameters in rope.values()):
        problems.append(f"config.json: {_THETA} is missing")
    if problems:
        raise CheckpointError("\n".join(problems))
    try:
        return _facts(values, rope)
    except (TypeError, ValueError, ArithmeticError) as error:
        raise CheckpointError(f"config.json: holds a value that is no number: {error}") from error


def _facts(values: Mapping[str, Any], rope: Mapping[str, Mapping[str, Any]]) -> ModelFacts:
    sizes: dict[str, Any] = {name: int(values[key]) for name, key in _SIZES.items()}
    heads, layers = int(sizes["heads"]), int(sizes["layers"])
    kinds = values.get("layer_types") or ()
    rotated = values.get("no_rope_layers") or ()  # 1 for a layer that rotates
    by_kind = {kind: _rope(parameters, values) for kind, parameters in rope.items()}
    shared = next(iter(by_kind.values()))
    return ModelFacts(
        **sizes,
        kv_heads=int(values.get("num_key_value_heads") or heads),
        head_dim=int(values.get("head_dim") or sizes["hidden"] // heads),
        tied=bool(values.get("tie_word_embeddings")),
        norm_eps=float(values[_EPSILON]),
        ropes=tuple(
            None if _at(rotated, layer, 1) == 0 else by_kind.get(_at(kinds, layer, ""), shared)
            for layer in range(layers)
        ),
        windows=_windows(values, layers),
        activation=str(values.get("hidden_act") or values.get("hidden_activation") or "silu"),
        biases=_biases(values),
        experts=int(values.get("num_experts") or values.get("num_local_experts") or 0),
    )


def _rope_parameters(values: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """Rotary parameters by layer type, or those of all layers under ""."""
    stated = values.get("rope_parameters") or values.get("rope_scaling") or {}
    nested = {kind: parameters for kind, parameters in stated.items() if isinstance(parameters, Mapping)}
    return nested if nested and _THETA not in stated else {"": stated}


def _theta(parameters: Mapping[str, Any], values: Mapping[str, Any]) -> Any:
    return parameters.get(_THETA, values.get(_THETA))


def _rope(parameters: Mapping[str, Any], values: Mapping[str, Any]) -> Rope:
    kind = parameters.get("rope_type") or parameters.get("type") or "default"
    partial = parameters.get("partial_rotary_factor") or values.get("partial_rotary_factor")
    return Rope(
        base=float(_theta(parameters, values)),
        kind="default" if kind == "mrope" else str(kind),  # its sections say the same
        scaling={key: value for key, value in parameters.items() if key not in _NO_SCALING},
        partial=float(partial or 1.0),
        sections=tuple(int(size) for size in parameters.get("mrope_section") or ()),
    )


def _windows(values: Mapping[str, Any], layers: int) -> tuple[int | None, ...]:
    """Layers that slide: those of `layer_types`, else those from `max_window_layers` on."""
    size, kinds = values.get("sliding_window"), values.get("layer_types") or ()
    if not size or values.get("use_sliding_window") is False:
        return (None,) * layers
    first = int(values.get("max_window_layers") or 0)
    slides = [_at(kinds, layer, "") == "sliding_attention" if kinds else layer >= first for layer in range(layers)]
    return tuple(int(size) if slide else None for slide in slides)


def _biases(values: Mapping[str, Any]) -> frozenset[str]:
    attention = ("q", "k", "v", "o") if values.get("attention_bias") else ()
    mlp = ("gate", "up", "down") if values.get("mlp_bias") else ()
    return frozenset((*attention, *mlp))


def _at(entries: Any, index: int, fallback: Any) -> Any:
    return entries[index] if index < len(entries) else fallback
