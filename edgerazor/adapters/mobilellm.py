"""MobileLLM: Llama's names throughout; the layers of a model with layer sharing are quantized once and run twice."""

import copy
from typing import Any

from edgerazor.adapters.decoder import DecoderAdapter
from edgerazor.adapters.mobilellm_model import REPEATS


class MobileLLMAdapter(DecoderAdapter):
    """MobileLLM models of the types `mobilellm` and `llama`."""

    def text_config(self, config: Any) -> Any:
        """Every pass through a shared layer is a layer to the losses."""
        if not getattr(config, "layer_sharing", False):
            return config.get_text_config()
        passes = copy.deepcopy(config)
        passes.num_hidden_layers = REPEATS * config.num_hidden_layers
        return passes
