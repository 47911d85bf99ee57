"""Gemma 3, its text model: GeGLU, four norms a layer, and another rotation in layers with a window than elsewhere."""

from dataclasses import replace
from typing import Any, ClassVar

from edgerazor.adapters.config_facts import completed_values
from edgerazor.adapters.decoder import DecoderAdapter
from edgerazor.core.contracts import GGUFArchitecture, ModelFacts
from edgerazor.errors import PlanError

_GEMMA3 = GGUFArchitecture(
    "gemma3", activation="gelu_pytorch_tanh", root_embedding=True, logit_softcap=True, window_period=6
)


class Gemma3TextAdapter(DecoderAdapter):
    """Models of the type `gemma3_text`, whose embeddings are multiplied by the root of the hidden size."""

    layer_parts: ClassVar = {
        **DecoderAdapter.layer_parts,
        "post_attention_layernorm": "attention_output_norm",
        "pre_feedforward_layernorm": "mlp_norm",
        "post_feedforward_layernorm": "mlp_output_norm",
    }

    def facts(self, config: Any) -> ModelFacts:
        """What the configuration says, where the norms stand, and what embeddings and attention are multiplied by."""
        stated, values = super().facts(config), completed_values(config)
        attention, logits = values.get("attn_logit_softcapping"), values.get("final_logit_softcapping")
        return replace(
            stated,
            qk_norm="per_head",
            norms="sandwich",
            norm_offset=1.0,
            embedding_scale=stated.hidden**0.5,
            attention_scale=float(values["query_pre_attn_scalar"]) ** -0.5,
            attention_softcap=None if attention is None else float(attention),
            logit_softcap=None if logits is None else float(logits),
            gguf=_GEMMA3,
            genai="gemma3_text",
        )

    def _logit_divisor(self, config: Any) -> float:
        if config.final_logit_softcapping is not None:
            raise PlanError(
                f"final_logit_softcapping {config.final_logit_softcapping}: losses cannot see capped logits"
            )
        return 1.0
