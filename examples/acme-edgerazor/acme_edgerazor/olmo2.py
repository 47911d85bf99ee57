"""OLMo 2: a decoder like Llama's, with norms over all heads, and behind attention and MLP instead of before them."""

from dataclasses import replace

from edgerazor.adapters.decoder import DecoderAdapter
from edgerazor.core.contracts import GGUFArchitecture

_NORMS = {"post_attention_layernorm": "attention_output_norm", "post_feedforward_layernorm": "mlp_output_norm"}


class Olmo2Adapter(DecoderAdapter):
    """Everything but its norms is what all decoders share."""

    def facts(self, config):
        """Where the norms stand, and what llama.cpp calls the family: exporters need no more."""
        return replace(super().facts(config), norms="post", qk_norm="all_heads", gguf=GGUFArchitecture("olmo2"))

    def role(self, parameter_name):
        role = super().role(parameter_name)
        return replace(role, kind=_NORMS.get(parameter_name.split(".")[-2], role.kind))
