"""Which keys of messages a teacher's chat template reads, looked up only where a message has an unusual one."""

import re
from collections.abc import Callable
from functools import cached_property
from pathlib import Path

from edgerazor.core.registry import Registry
from edgerazor.data.template import ChatTemplate
from edgerazor.inference.open_runtime import is_exported, open_runtime
from edgerazor.models.source import ModelSource


class TemplateKeys:
    """`key in keys`: the template of the model mentions the word, as training asks of its own.

    Args:
        model: folder, hub name or exported file.
        load_registry: gives the plugins.
    """

    def __init__(self, model: str, load_registry: Callable[[], Registry]):
        self._model, self._load_registry = model, load_registry

    def __contains__(self, key: object) -> bool:
        return isinstance(key, str) and self._mentions(key)

    @cached_property
    def _mentions(self) -> Callable[[str], bool]:
        registry = self._load_registry()
        if not is_exported(Path(self._model), registry):
            return ChatTemplate(ModelSource(self._model, registry=registry).tokenizer).mentions
        runtime = open_runtime(self._model, registry=registry)
        template = runtime.chat_template or ""
        runtime.close()
        return lambda key: re.search(rf"\b{re.escape(key)}\b", template) is not None
