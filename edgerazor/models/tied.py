"""Whether a head is the embedding or has weights of its own: the files decide, whatever config.json says.

Some trainers write a head that was trained apart and leave `tie_word_embeddings: true` in config.json. transformers
then loads the head, and keeps the word of config.json, by which the next one that loads the model loses it.
"""

from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from edgerazor.core.tensor_files import Header, open_tensors, read_headers, weight_files
from edgerazor.errors import CheckpointError
from edgerazor.models.types import auto_class

_ROWS_AT_ONCE = 4096


def own_head(folder: Path, config: Any) -> str | None:
    """Name of a tensor in the files of `folder` that config.json ties to another one, but that has other values.

    None where both are one, and where the files cannot tell: they are absent, damaged, no safetensors, or those of
    several models in one; loading the model finds out then.

    Args:
        folder: with config.json and the weights.
        config: of the model; of the whole one where it is made of several.
    """
    if not says_tied(config):
        return None
    classes = auto_class(config)._model_mapping
    if type(config) not in classes:  # made of several models, such as Qwen2.5-Omni
        return None
    pairs = getattr(classes[type(config)], "_tied_weights_keys", None) or {}
    try:
        headers = read_headers(weight_files(folder))
        for head, embedding in pairs.items() if isinstance(pairs, dict) else ():
            if head in headers and embedding in headers and _differ(headers, head, embedding):
                return str(head)
    except (CheckpointError, OSError, SafetensorError):
        return None
    return None


def says_tied(config: Any) -> bool:
    """Whether the configuration ties the head to the embedding."""
    return bool(getattr(config.get_text_config(), "tie_word_embeddings", False))


def untie(config: Any) -> None:
    """Make the configuration say that the head has weights of its own."""
    for part in (config, config.get_text_config()):
        part.tie_word_embeddings = False


def has_own_head(model: Any) -> bool:
    """Whether the head of a loaded model has another parameter than its embedding."""
    head, embedding = model.get_output_embeddings(), model.get_input_embeddings()
    return head is not None and embedding is not None and head.weight is not embedding.weight


def _differ(headers: dict[str, Header], one: str, other: str) -> bool:
    """Whether two tensors of the files differ; some rows are read at a time."""
    if headers[one].shape != headers[other].shape:
        return True
    with ExitStack() as stack:
        first, second = (stack.enter_context(open_tensors(headers[name].file)).get_slice(name) for name in (one, other))
        starts = range(0, headers[one].shape[0], _ROWS_AT_ONCE)
        return any(
            not torch.equal(first[start : start + _ROWS_AT_ONCE], second[start : start + _ROWS_AT_ONCE])
            for start in starts
        )
