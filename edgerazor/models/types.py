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
    """The Auto class of transformers for a configuration: of language models, classifiers of images, or models around.

    A model around a language model is one of images and text.
    """
    from transformers import AutoModelForCausalLM, AutoModelForImageClassification, AutoModelForImageTextToText

    known = (AutoModelForCausalLM, AutoModelForImageClassification)
    return next((found for found in known if type(config) in found._model_mapping), AutoModelForImageTextToText)


def attention_options(config: Any) -> dict[str, str]:
    """What transformers is asked for where it builds the model: `sdpa`, unless the model has no attention."""
    classes = auto_class(config)._model_mapping
    known: Any = classes.get(type(config), ())
    every = known if isinstance(known, tuple) else (known,)
    return {"attn_implementation": "sdpa"} if all(found._supports_sdpa for found in every) else {}


def vocabulary_size(config: Any) -> int:
    """Tokens the language model numbers; of a classifier its classes."""
    return int(config.num_labels if classifies_images(config) else config.get_text_config().vocab_size)


def classifies_images(config: Any) -> bool:
    """Whether the model gives one prediction per image."""
    from transformers import AutoModelForImageClassification

    return auto_class(config) is AutoModelForImageClassification
