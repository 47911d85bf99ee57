"""OLMo 2: a decoder like Llama's, with its norms behind attention and MLP instead of before them."""

from dataclasses import replace

from edgerazor.adapters.decoder import DecoderAdapter

_NORMS = {"post_attention_layernorm": "attention_output_norm", "post_feedforward_layernorm": "mlp_output_norm"}


class Olmo2Adapter(DecoderAdapter):
    """Everything but the roles of the norms is what all decoders share."""

    def role(self, parameter_name):
        role = super().role(parameter_name)
        return replace(role, kind=_NORMS.get(parameter_name.split(".")[-2], role.kind))
