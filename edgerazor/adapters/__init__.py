"""Model families, declared through the same hook as any third party's."""

from collections.abc import Iterable

from edgerazor.adapters.params import (
    LlamaParams,
    MistralParams,
    MobileLLMParams,
    Qwen2Params,
    Qwen3MoEParams,
    Qwen3Params,
    Qwen25OmniParams,
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
    ]
