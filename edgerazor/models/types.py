"""Model types beyond what `AutoModelForCausalLM` knows: where their classes are, and which part of them is trained."""

from typing import Any

from edgerazor.core.registry import Registry


def trained_config(config: Any, registry: Registry) -> Any:
    """The configuration of the part that is trained and packed: of the thinker for a Qwen2.5-Omni, else `config`."""
    for declared in registry.adapter_declarations():
        part = declared.trained_parts.get(config.model_type)
        if part is not None:
            return getattr(config, part)
    return config


def auto_class(config: Any) -> Any:
    """The Auto class of transformers that builds language models of this configuration, or models around one."""
    from transformers import AutoModelForCausalLM, AutoModelForImageTextToText

    return AutoModelForCausalLM if type(config) in AutoModelForCausalLM._model_mapping else AutoModelForImageTextToText


def vocabulary_size(config: Any) -> int:
    """Tokens the language model numbers."""
    return int(config.get_text_config().vocab_size)
