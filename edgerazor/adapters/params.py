"""Declarations of the built-in families: model types, group sizes and loss weights (METHOD 3 and 5)."""

from collections.abc import Mapping
from typing import ClassVar, Literal

from edgerazor.schemas.components import AdapterParams, GroupSizes, PresetWeights


class Qwen3Params(AdapterParams):
    """Dense Qwen3."""

    target: ClassVar[str] = "edgerazor.adapters.qwen3:Qwen3Adapter"
    model_types: ClassVar[tuple[str, ...]] = ("qwen3",)
    group_sizes: ClassVar[GroupSizes | None] = GroupSizes(weights=256, activations=256, kv_cache=128)
    presets: ClassVar[Mapping[str, PresetWeights]] = {
        "4-bit": PresetWeights(task=0.05, eakld=2.0, feature=0.5),
        "2.79-bit": PresetWeights(task=0.1, eakld=2.0, feature=0.1),
        "1.88-bit": PresetWeights(task=0.1, eakld=2.0, feature=0.1),
        "1.58-bit": PresetWeights(task=0.1, eakld=2.0, feature=0.1),
    }
    name: Literal["qwen3"] = "qwen3"


class LlamaParams(AdapterParams):
    """Llama and the decoders built like it; published group sizes exist for none of them, so a preset needs its own."""

    target: ClassVar[str] = "edgerazor.adapters.decoder:DecoderAdapter"
    model_types: ClassVar[tuple[str, ...]] = ("llama", "mistral", "qwen2")
    name: Literal["llama"] = "llama"
