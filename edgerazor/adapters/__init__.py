"""Model families, declared through the same hook as any third party's."""

from collections.abc import Iterable

from edgerazor.adapters.params import LlamaParams, Qwen3Params
from edgerazor.core.hookspecs import hookimpl
from edgerazor.schemas.components import AdapterParams


@hookimpl
def edgerazor_adapters() -> Iterable[type[AdapterParams]]:
    return [Qwen3Params, LlamaParams]
