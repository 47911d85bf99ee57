"""Declarations of the built-in families: model types, group sizes and loss weights (METHOD 3 and 5)."""

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

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


class Qwen3MoEParams(AdapterParams):
    """Qwen3 mixtures of experts; group sizes as for dense models, no published loss weights."""

    target: ClassVar[str] = "edgerazor.adapters.qwen3:Qwen3MoEAdapter"
    model_types: ClassVar[tuple[str, ...]] = ("qwen3_moe",)
    group_sizes: ClassVar[GroupSizes | None] = GroupSizes(weights=256, activations=256, kv_cache=128)
    name: Literal["qwen3_moe"] = "qwen3_moe"


class MobileLLMParams(AdapterParams):
    """MobileLLM; `model.family: mobilellm` takes it for checkpoints of the type `llama` too."""

    target: ClassVar[str] = "edgerazor.adapters.mobilellm:MobileLLMAdapter"
    model_types: ClassVar[tuple[str, ...]] = ("mobilellm",)
    registers: ClassVar[str] = "edgerazor.adapters.mobilellm_model:register"
    group_sizes: ClassVar[GroupSizes | None] = GroupSizes(weights=64, activations=64, kv_cache=64)
    presets: ClassVar[Mapping[str, PresetWeights]] = {
        "4-bit": PresetWeights(task=0.5, eakld=2.0, feature=0.1),
        "2.79-bit": PresetWeights(task=0.5, eakld=2.0, feature=0.1),
        "1.88-bit": PresetWeights(task=0.2, eakld=4.0, feature=1.0),
        "1.58-bit": PresetWeights(task=0.2, eakld=4.0, feature=1.0),
    }
    name: Literal["mobilellm"] = "mobilellm"


class Qwen25OmniParams(AdapterParams):
    """The thinker of Qwen2.5-Omni; the talker and what follows it are other models and are left where they are."""

    target: ClassVar[str] = "edgerazor.adapters.qwen2_5_omni:Qwen25OmniAdapter"
    model_types: ClassVar[tuple[str, ...]] = ("qwen2_5_omni", "qwen2_5_omni_thinker")
    trained_parts: ClassVar[Mapping[str, str]] = {"qwen2_5_omni": "thinker_config"}
    group_sizes: ClassVar[GroupSizes | None] = GroupSizes(weights=32, activations=32, kv_cache=32)
    presets: ClassVar[Mapping[str, PresetWeights]] = {"4-bit": PresetWeights(task=0.1, eakld=2.0, feature=0.2)}
    name: Literal["qwen2_5_omni"] = "qwen2_5_omni"


class LlamaParams(AdapterParams):
    """Llama and what is published as one: Llama 3.1 and 3.2, SmolLM2."""

    target: ClassVar[str] = "edgerazor.adapters.llama:LlamaAdapter"
    model_types: ClassVar[tuple[str, ...]] = ("llama",)
    name: Literal["llama"] = "llama"


class MistralParams(AdapterParams):
    """Mistral."""

    target: ClassVar[str] = "edgerazor.adapters.llama:MistralAdapter"
    model_types: ClassVar[tuple[str, ...]] = ("mistral",)
    name: Literal["mistral"] = "mistral"


class Qwen2Params(AdapterParams):
    """Qwen2 and Qwen2.5."""

    target: ClassVar[str] = "edgerazor.adapters.llama:Qwen2Adapter"
    model_types: ClassVar[tuple[str, ...]] = ("qwen2",)
    name: Literal["qwen2"] = "qwen2"


class SmolLM3Params(AdapterParams):
    """SmolLM3."""

    target: ClassVar[str] = "edgerazor.adapters.llama:SmolLM3Adapter"
    model_types: ClassVar[tuple[str, ...]] = ("smollm3",)
    name: Literal["smollm3"] = "smollm3"


class GraniteParams(AdapterParams):
    """Granite 3, dense."""

    target: ClassVar[str] = "edgerazor.adapters.llama:GraniteAdapter"
    model_types: ClassVar[tuple[str, ...]] = ("granite",)
    name: Literal["granite"] = "granite"


class Gemma3TextParams(AdapterParams):
    """The text model of Gemma 3."""

    target: ClassVar[str] = "edgerazor.adapters.gemma3:Gemma3TextAdapter"
    model_types: ClassVar[tuple[str, ...]] = ("gemma3_text",)
    name: Literal["gemma3_text"] = "gemma3_text"


class Phi3Params(AdapterParams):
    """Phi-3 and Phi-4-mini."""

    target: ClassVar[str] = "edgerazor.adapters.phi3:Phi3Adapter"
    model_types: ClassVar[tuple[str, ...]] = ("phi3",)
    renamed: ClassVar[Mapping[str, str]] = {f"{part}_proj": "qkv_proj" for part in "qkv"}
    name: Literal["phi3"] = "phi3"


class Olmo2Params(AdapterParams):
    """OLMo 2."""

    target: ClassVar[str] = "edgerazor.adapters.olmo2:Olmo2Adapter"
    model_types: ClassVar[tuple[str, ...]] = ("olmo2",)
    name: Literal["olmo2"] = "olmo2"


class ImageClassifierParams(AdapterParams):
    """What image classifiers share; none of them has published loss weights."""

    caches_keys: ClassVar[bool] = False


class ViTParams(ImageClassifierParams):
    """ViT."""

    target: ClassVar[str] = "edgerazor.adapters.vit:ViTAdapter"
    model_types: ClassVar[tuple[str, ...]] = ("vit",)
    renamed: ClassVar[Mapping[str, str]] = {"embed_tokens": "patch_embeddings.projection", "lm_head": "classifier"}
    name: Literal["vit"] = "vit"


class DeiTParams(ViTParams):
    """DeiT, distilled or not, with its one classifier."""

    target: ClassVar[str] = "edgerazor.adapters.vit:DeiTAdapter"
    model_types: ClassVar[tuple[str, ...]] = ("deit",)
    name: Literal["deit"] = "deit"  # type: ignore[assignment]


class BeitParams(ViTParams):
    """BEiT, with positions of its own or relative ones."""

    target: ClassVar[str] = "edgerazor.adapters.vit:BeitAdapter"
    model_types: ClassVar[tuple[str, ...]] = ("beit",)
    name: Literal["beit"] = "beit"  # type: ignore[assignment]


class ResNetParams(ImageClassifierParams):
    """ResNet of basic or bottleneck layers."""

    target: ClassVar[str] = "edgerazor.adapters.resnet:ResNetAdapter"
    model_types: ClassVar[tuple[str, ...]] = ("resnet",)
    renamed: ClassVar[Mapping[str, str]] = {"embed_tokens": "embedder.embedder.convolution", "lm_head": "classifier.1"}
    layers: ClassVar[Mapping[str, Any] | None] = {"name": "lafd", "metric": "norm", "top_k": 3}
    name: Literal["resnet"] = "resnet"
