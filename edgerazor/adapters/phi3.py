"""Phi-3 and Phi-4-mini: q, k and v lie in one parameter, gate and up in another; heads may be rotated in part."""

from dataclasses import replace
from typing import Any, ClassVar

from edgerazor.adapters.decoder import DecoderAdapter
from edgerazor.core.contracts import GGUFArchitecture, ModelFacts

_PHI3 = GGUFArchitecture("phi3", whole_heads=True, fused=True, partial_rotation=True, long_frequencies=True)


class Phi3Adapter(DecoderAdapter):
    """Models of the type `phi3`."""

    layer_parts: ClassVar = {
        **DecoderAdapter.layer_parts,
        "self_attn.qkv_proj": "qkv",
        "mlp.gate_up_proj": "gate_up",
    }

    def facts(self, config: Any) -> ModelFacts:
        """What the configuration says, and which rows of the fused matrices are whose."""
        stated = super().facts(config)
        queries, keys = stated.heads * stated.head_dim, stated.kv_heads * stated.head_dim
        fused = {
            "qkv": (("q", queries), ("k", keys), ("v", keys)),
            "gate_up": (("gate", stated.intermediate), ("up", stated.intermediate)),
        }
        return replace(stated, fused=fused, gguf=_PHI3, genai="phi3")
