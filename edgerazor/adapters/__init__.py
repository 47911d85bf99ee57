"""Model families, declared through the same hook as any third party's."""

from collections.abc import Iterable

from edgerazor.adapters.params import (
    BeitParams,
    DeiTParams,
    Gemma3TextParams,
    GraniteParams,
    LlamaParams,
    MistralParams,
    MobileLLMParams,
    Olmo2Params,
    Phi3Params,
    Qwen2Params,
    Qwen3MoEParams,
    Qwen3Params,
    Qwen25OmniParams,
    ResNetParams,
    SmolLM3Params,
    ViTParams,
)
from edgerazor.core.hookspecs import hookimpl
from edgerazor.schemas.components import AdapterParams


@hookimpl
def edgerazor_adapters() -> Iterable[type[AdapterParams]]:
    return [
        Qwen3Params,
        Qwen3MoEParams,
        MobileLLMParams,
        LlamaParams,
        MistralParams,
        Qwen2Params,
        Qwen25OmniParams,
        SmolLM3Params,
        Gemma3TextParams,
        Phi3Params,
        Olmo2Params,
        GraniteParams,
        ViTParams,
        DeiTParams,
        BeitParams,
        ResNetParams,
    ]
