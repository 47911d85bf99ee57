"""The model type `mobilellm` in classes of our own: the published checkpoints load without remote code.

It is Llama with two additions: `share_embedding` uses the embedding as output head, and `layer_sharing` runs every
layer twice in a row, each time with keys and values of its own.
"""

from collections.abc import Iterator
from typing import Any

from huggingface_hub.dataclasses import strict
from torch import nn
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, DynamicCache, LlamaConfig, LlamaForCausalLM
from transformers.models.llama.modeling_llama import LlamaModel

REPEATS = 2


@strict
class MobileLLMConfig(LlamaConfig):
    """config.json of a MobileLLM."""

    model_type = "mobilellm"
    share_embedding: bool = False
    layer_sharing: bool = False

    def __post_init__(self, **kwargs: Any) -> None:
        if self.share_embedding:
            self.tie_word_embeddings = True
        super().__post_init__(**kwargs)


class RepeatedLayers(nn.ModuleList):
    """Layers of which a slice gives each one twice in a row; their numbers then run over the passes, for the cache."""

    def __getitem__(self, index: Any) -> Any:
        return self._passes(index) if isinstance(index, slice) else super().__getitem__(index)

    def _passes(self, index: slice) -> Iterator[nn.Module]:
        for number in range(len(self))[index]:
            layer: Any = super().__getitem__(number)
            for repeat in range(REPEATS):
                layer.self_attn.layer_idx = REPEATS * number + repeat
                yield layer


class MobileLLMModel(LlamaModel):
    """The decoder without its head."""

    config_class = MobileLLMConfig
    layers: nn.ModuleList

    def __init__(self, config: MobileLLMConfig):
        super().__init__(config)
        if config.layer_sharing:
            self.layers = RepeatedLayers(self.layers)

    def forward(self, *args: Any, past_key_values: Any = None, use_cache: bool | None = None, **kwargs: Any) -> Any:
        """As Llama's; a cache gets a place for every pass through a layer."""
        use_cache = self.config.use_cache if use_cache is None else use_cache
        if isinstance(self.layers, RepeatedLayers) and use_cache:
            past_key_values = DynamicCache() if past_key_values is None else past_key_values
            missing = REPEATS * len(self.layers) - len(past_key_values.layers)
            if past_key_values.layers and missing > 0:
                kind = type(past_key_values.layers[0])
                past_key_values.layers.extend(kind() for _ in range(missing))
        return super().forward(*args, past_key_values=past_key_values, use_cache=use_cache, **kwargs)


class MobileLLMForCausalLM(LlamaForCausalLM):
    """The decoder with its head."""

    config_class = MobileLLMConfig

    def __init__(self, config: MobileLLMConfig):
        super().__init__(config)
        self.model = MobileLLMModel(config)
        self.post_init()


def register() -> None:
    """Make the Auto classes of transformers know the type; safe to call again."""
    AutoConfig.register("mobilellm", MobileLLMConfig, exist_ok=True)
    AutoModel.register(MobileLLMConfig, MobileLLMModel, exist_ok=True)
    AutoModelForCausalLM.register(MobileLLMConfig, MobileLLMForCausalLM, exist_ok=True)
