"""OLMo 2: a decoder like Llama's, with norms over all heads, and behind attention and MLP instead of before them."""

from dataclasses import replace
from typing import Any, ClassVar

from edgerazor.adapters.decoder import DecoderAdapter
from edgerazor.core.contracts import GGUFArchitecture, ModelFacts


class Olmo2Adapter(DecoderAdapter):
    """Models of the type `olmo2`."""

    layer_parts: ClassVar = {
        **DecoderAdapter.layer_parts,
        "post_attention_layernorm": "attention_output_norm",
        "post_feedforward_layernorm": "mlp_output_norm",
    }

    def facts(self, config: Any) -> ModelFacts:
        """What the configuration says, and where the norms stand."""
        architecture = GGUFArchitecture("olmo2", whole_heads=True, own_head=True)
        return replace(super().facts(config), norms="post", qk_norm="all_heads", gguf=architecture, genai="olmo")
