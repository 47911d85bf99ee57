"""EXAONE 4: Llama with norms on queries and keys, and behind attention and MLP instead of before them."""

from dataclasses import replace
from typing import ClassVar

from edgerazor.adapters.decoder import DecoderAdapter
from edgerazor.core.contracts import GGUFArchitecture


class Exaone4Adapter(DecoderAdapter):
    """Everything but its norms is what all decoders share."""

    layer_parts: ClassVar = {
        **DecoderAdapter.layer_parts,
        "post_attention_layernorm": "attention_output_norm",
        "post_feedforward_layernorm": "mlp_output_norm",
    }

    def facts(self, config):
        """Where the norms stand, and what llama.cpp calls the family: exporters need no more."""
        stated = super().facts(config)
        if any(stated.windows):  # models with windows rotate in the layers that have one
            pairs = zip(stated.ropes, stated.windows, strict=True)
            stated = replace(stated, ropes=tuple(rope if window else None for rope, window in pairs))
        return replace(stated, norms="post", qk_norm="per_head", gguf=GGUFArchitecture("exaone4"))
