"""Model families that llama.cpp knows: which tensors they have, and the keys that describe them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from edgerazor.core.contracts import TensorRole

Metadata = dict[str, Any]

_OUTER = {"embedding": "token_embd", "final_norm": "output_norm", "head": "output"}
_LAYER = {
    "attention_norm": "attn_norm",
    "q": "attn_q",
    "k": "attn_k",
    "v": "attn_v",
    "o": "attn_output",
    "q_norm": "attn_q_norm",
    "k_norm": "attn_k_norm",
    "mlp_norm": "ffn_norm",
    "gate": "ffn_gate",
    "up": "ffn_up",
    "down": "ffn_down",
}
_NORMS_OF_HEADS = ("q_norm", "k_norm")


@dataclass(frozen=True)
class Architecture:
    """What distinguishes a family in the file.

    Attributes:
        name: as llama.cpp calls it.
        permuted: rows of q and k are reordered, because its rotary embedding turns neighbouring columns.
        head_norms: queries and keys have norms.
        biases: parts that may have one.
        section: keys that lead to the text model's part of config.json.
        outside: prefixes of tensors that belong to other files.
        note: for the report.
    """

    name: str
    permuted: bool = False
    head_norms: bool = False
    biases: tuple[str, ...] = ()
    section: tuple[str, ...] = ()
    outside: tuple[str, ...] = ()
    note: str = ""


_LLAMA = Architecture("llama", permuted=True, biases=("q", "k", "v", "o", "gate", "up", "down"))
ARCHITECTURES: dict[str, Architecture] = {
    "qwen3": Architecture("qwen3", head_norms=True),
    "qwen2": Architecture("qwen2", biases=("q", "k", "v")),
    "llama": _LLAMA,
    "mobilellm": _LLAMA,
    "qwen2_5_omni_thinker": Architecture(
        "qwen2vl",
        biases=("q", "k", "v"),
        section=("text_config",),
        outside=("model.visual.", "model.audio_tower."),
        note="text model of the thinker alone; vision and audio need a second file by llama.cpp's converter (--mmproj)",
    ),
}


def layer_parts(architecture: Architecture) -> list[str]:
    """Kinds of tensors that every layer must have."""
    return [kind for kind in _LAYER if architecture.head_norms or kind not in _NORMS_OF_HEADS]


def tensor_name(role: TensorRole, architecture: Architecture) -> str | None:
    """`blk.0.attn_q.weight` for the part a tensor plays; None if the family has no such tensor."""
    suffix = "bias" if role.bias else "weight"
    if role.bias and role.kind not in architecture.biases:
        return None
    if role.kind in _OUTER and role.layer is None:
        return f"{_OUTER[role.kind]}.{suffix}"
    if role.kind not in layer_parts(architecture) or role.layer is None:
        return None
    return f"blk.{role.layer}.{_LAYER[role.kind]}.{suffix}"


def text_config(config: Mapping[str, Any], architecture: Architecture) -> Mapping[str, Any]:
    """The part of config.json that describes the text model."""
    for key in architecture.section:
        inner = config.get(key)
        config = inner if isinstance(inner, Mapping) else config
    return config


def head_counts(config: Mapping[str, Any]) -> tuple[int, int, int]:
    """Heads, key/value heads and the width of a head."""
    heads = int(config["num_attention_heads"])
    width = config.get("head_dim") or int(config["hidden_size"]) // heads
    return heads, int(config.get("num_key_value_heads") or heads), int(width)


def describe_model(config: Mapping[str, Any], architecture: Architecture) -> tuple[Metadata, list[str]]:
    """Keys of the format for a text model's configuration, and a line for everything that it cannot express."""
    needed = ("max_position_embeddings", "hidden_size", "num_hidden_layers", "intermediate_size", "rms_norm_eps")
    absent = [key for key in (*needed, "num_attention_heads", "vocab_size") if config.get(key) is None]
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    theta: Any = rope.get("rope_theta", config.get("rope_theta"))
    problems = [f"config.json: {key} is missing" for key in [*absent, *([] if theta else ["rope_theta"])]]
    problems += _unsupported(config, rope)
    if problems:
        return {}, problems
    heads, kv_heads, width = head_counts(config)
    name = architecture.name
    keys: Metadata = {
        f"{name}.context_length": int(config["max_position_embeddings"]),
        f"{name}.embedding_length": int(config["hidden_size"]),
        f"{name}.block_count": int(config["num_hidden_layers"]),
        f"{name}.feed_forward_length": int(config["intermediate_size"]),
        f"{name}.vocab_size": int(config["vocab_size"]),
        f"{name}.attention.head_count": heads,
        f"{name}.attention.head_count_kv": kv_heads,
        f"{name}.attention.key_length": width,
        f"{name}.attention.value_length": width,
        f"{name}.attention.layer_norm_rms_epsilon": float(config["rms_norm_eps"]),
        f"{name}.rope.freq_base": float(theta),
    }
    if architecture.permuted:
        keys[f"{name}.rope.dimension_count"] = width
    if "mrope_section" in rope:
        sections = [int(size) for size in rope["mrope_section"]]
        keys[f"{name}.rope.dimension_sections"] = (sections + [0] * 4)[:4]
    return keys, []


def _unsupported(config: Mapping[str, Any], rope: Mapping[str, Any]) -> list[str]:
    """Properties of a model that would be lost without a word."""
    problems = []
    kind = rope.get("rope_type") or rope.get("type") or "default"
    if kind not in ("default", "mrope"):
        problems.append(f"config.json: rope_type '{kind}' is not supported; expected 'default'")
    if config.get("layer_sharing"):
        problems.append("config.json: layer_sharing is true; a GGUF would hold every shared block twice")
    if config.get("use_sliding_window"):
        problems.append("config.json: use_sliding_window is true; sliding windows are not supported")
    activation = config.get("hidden_act", "silu")
    if activation != "silu":
        problems.append(f"config.json: hidden_act '{activation}' is not supported; expected 'silu'")
    if float(rope.get("partial_rotary_factor") or config.get("partial_rotary_factor") or 1.0) != 1.0:
        problems.append("config.json: partial_rotary_factor is not 1; every column of a head must be rotated")
    return problems
