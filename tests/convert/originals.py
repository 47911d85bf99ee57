"""Configurations in the original release's own words, as its published runs had them."""

import copy
from typing import Any

INT4 = "weight_quant_uniform_symmetric_absmax_per_block_int4"
TERNARY = "weight_quant_uniform_symmetric_clip_per_block_int1_58"
MIXED = "weight_quant_uniform_symmetric_clip_per_block_mp_int1_58_int4_static_row_wise_sparse"
STATE = "state_quant_uniform_symmetric_absmax_per_block_int8"
BODIES: dict[str, dict[str, Any]] = {
    "4": {"weight_function": INT4},
    "2.79": {"weight_function": MIXED, "w_scale_factor": 2.0, "w_mixed_precision_prop": 0.5},
    "1.88": {"weight_function": MIXED, "w_scale_factor": 2.0, "w_mixed_precision_prop": 0.125},
    "1.58": {"weight_function": TERNARY, "w_scale_factor": 2.0},
}
# Model of a recipe: attention type, group sizes, weights of task, logits and features by bits.
PUBLISHED: dict[str, tuple[str, tuple[int, int, int], dict[str, tuple[float, float, float]]]] = {
    "qwen3-0.6b": (
        "qwen3attention",
        (256, 256, 128),
        {"4": (0.05, 2.0, 0.5), "2.79": (0.1, 2.0, 0.1), "1.88": (0.1, 2.0, 0.1), "1.58": (0.1, 2.0, 0.1)},
    ),
    "qwen3-1.7b": (
        "qwen3attention",
        (256, 256, 128),
        {"4": (0.05, 2.0, 0.5), "2.79": (0.1, 2.0, 0.1), "1.88": (0.1, 2.0, 0.1), "1.58": (0.1, 2.0, 0.1)},
    ),
    "mobilellm-350m": (
        "llamaattention",
        (64, 64, 64),
        {"4": (0.5, 2.0, 0.1), "2.79": (0.5, 2.0, 0.1), "1.88": (0.2, 4.0, 1.0), "1.58": (0.2, 4.0, 1.0)},
    ),
    "qwen2.5-omni-7b": ("qwen2_5omniattention", (32, 32, 32), {"4": (0.1, 2.0, 0.2)}),
}
OMNI_EXCLUDES = ["thinker.audio_tower.*", "thinker.visual.blocks.*.mlp.down_proj.*", "talker.*", "token2wav.*"]


def function(bits: str, sizes: tuple[int, int, int] = (256, 256, 128)) -> dict[str, Any]:
    weights, activations, kv_cache = sizes
    return {
        "epsilon": 1e-5,
        **BODIES[bits],
        "w_block_size": weights,
        "is_w_quantized": False,
        "activation_function": STATE,
        "a_block_size": activations,
        "kv_cache_function": STATE,
        "kv_block_size": kv_cache,
    }


def logits_loss(weight: float = 2.0, **values: Any) -> dict[str, Any]:
    return {
        "loss_type": "logits",
        "loss_function": "compute_kld_confidence",
        "alpha": weight,
        "temperature": 1.0,
        "padding_id": -100,
        "use_entropy": True,
        "confidence_k": 16,
        "reduction": "batch_mean",
        **values,
    }


def features_loss(weight: float = 0.1, **values: Any) -> dict[str, Any]:
    return {
        "loss_type": "hidden_states",
        "loss_function": "compute_mse",
        "alpha": weight,
        "layer_index": "adaptive",
        "padding_id": -100,
        "reduction": "batch_mean",
        **values,
    }


def published(model: str, bits: str) -> dict[str, Any]:
    """The configuration behind a published model."""
    attention, sizes, weights = PUBLISHED[model]
    task, logits, features = weights[bits]
    embedding = {"weight_function": INT4, "w_scale_factor": -1, "w_mixed_precision_prop": -1}
    quantization: dict[str, Any] = {
        "method": "QAT",
        "select": {
            "target_types": ["linear", "embedding", attention],
            "target_names": [],
            "exclude_types": [],
            "exclude_names": OMNI_EXCLUDES if "omni" in model else [],
        },
        "function": function(bits, sizes),
        "training": "all",
    }
    if bits != "4":
        quantization["overrides"] = [{"name": name, **embedding} for name in ("model.embed_tokens", "lm_head")]
    losses = {"loss_1": logits_loss(logits), "loss_2": features_loss(features)}
    return {
        "qat_configuration": quantization,
        "kd_configuration": {"method": "KD", "loss_task_alpha": task, **losses},
    }


def changed(key_path: str, value: Any) -> dict[str, Any]:
    """The 1.88-bit configuration of Qwen3 with one value replaced, such as `qat_configuration.select.target_names`."""
    content = copy.deepcopy(published("qwen3-0.6b", "1.88"))
    *sections, key = key_path.split(".")
    inner: Any = content
    for section in sections:
        inner = inner[section]
    inner[key] = value
    return content
