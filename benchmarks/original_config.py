"""How the original release 1.3.5 is told what a recipe says; imports nothing, since its interpreter reads this, too."""

from collections.abc import Mapping
from typing import Any

NAME = "original release 1.3.5"
TERNARY = "weight_quant_uniform_symmetric_clip_per_block_int1_58"
MIXED = "weight_quant_uniform_symmetric_clip_per_block_mp_int1_58_int4_static_row_wise_sparse"
INT4 = "weight_quant_uniform_symmetric_absmax_per_block_int4"
INT8_INPUTS = "state_quant_uniform_symmetric_absmax_per_block_int8"
_BODIES: Mapping[float, Mapping[str, Any]] = {
    4: {"weight_function": INT4},
    2.79: {"weight_function": MIXED, "w_scale_factor": 2.0, "w_mixed_precision_prop": 0.5},
    1.88: {"weight_function": MIXED, "w_scale_factor": 2.0, "w_mixed_precision_prop": 0.125},
    1.58: {"weight_function": TERNARY, "w_scale_factor": 2.0},
}
_UNUSED = {"w_scale_factor": -1, "w_mixed_precision_prop": -1}


def quantization(bits: float, group_size: int) -> dict[str, Any]:
    """Of the decoder's matrices in 1.58, 1.88, 2.79 or 4 bits; embedding and head are int4, inputs int8."""
    return {
        "method": "QAT",
        "select": {"target_types": ["linear", "embedding"]},
        "function": {
            **_UNUSED,
            **_BODIES[bits],
            "w_block_size": group_size,
            "is_w_quantized": False,
            "activation_function": INT8_INPUTS,
            "a_block_size": group_size,
            "epsilon": 1e-5,
        },
        "overrides": [{"name": name, "weight_function": INT4, **_UNUSED} for name in (".*embed_tokens", ".*lm_head")],
    }


def distillation(
    task: float, divergence: float, features: float, *, layers: int, uniform_support: int, temperature: float = 1.0
) -> dict[str, Any]:
    """Weights of cross entropy, EAKLD, and the squared difference of states at so many layers, which LAFD takes."""
    return {
        "method": "KD",
        "loss_task_alpha": task,
        "loss_1": {
            "loss_type": "logits",
            "loss_function": "compute_kld_confidence",
            "alpha": divergence,
            "temperature": temperature,
            "use_entropy": True,
            "confidence_k": uniform_support,
            "reduction": "batch_mean",
        },
        "loss_2": {
            "loss_type": "hidden_states",
            "loss_function": "compute_mse",
            "alpha": features,
            "layer_index": "adaptive",
            "layer_index_adaptive_topk": layers,
            "reduction": "batch_mean",
        },
    }
