"""MobileLLM: Llama's names throughout; the layers of a model with layer sharing are quantized once and run twice."""

import copy
from dataclasses import replace
from typing import Any

from edgerazor.adapters.config_facts import config_values
from edgerazor.adapters.llama import LlamaAdapter
from edgerazor.adapters.mobilellm_model import REPEATS
from edgerazor.core.contracts import ModelFacts


class MobileLLMAdapter(LlamaAdapter):
    """MobileLLM models of the types `mobilellm` and `llama`."""

    def facts(self, config: Any) -> ModelFacts:
        """Llama's; a shared embedding is a tied one, and shared layers run more than once."""
        stated, values = super().facts(config), config_values(config)
        repeats = REPEATS if values.get("layer_sharing") else 1
        tied = stated.tied or bool(values.get("share_embedding"))
        return replace(stated, tied=tied, repeats=repeats, mlx="llama")

    def text_config(self, config: Any) -> Any:
        """Every pass through a shared layer is a layer to the losses."""
        if not getattr(config, "layer_sharing", False):
            return config.get_text_config()
        passes = copy.deepcopy(config)
        passes.num_hidden_layers = REPEATS * config.num_hidden_layers
        return passes
