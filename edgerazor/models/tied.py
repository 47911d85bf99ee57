"""Whether a head is the embedding or has weights of its own: the files decide, whatever config.json says.

Some trainers write a head that was trained apart and leave `tie_word_embeddings: true` in config.json. transformers
then loads the head, and keeps the word of config.json, by which the next one that loads the model loses it.
"""

import json
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

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
        places = dict(tensor_places(folder))
        for head, embedding in pairs.items() if isinstance(pairs, dict) else ():
            if head in places and embedding in places and _differ(places, head, embedding):
                return str(head)
    except (OSError, ValueError, SafetensorError):
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


def tensor_places(folder: Path) -> Iterator[tuple[str, Path]]:
    """Name of every tensor, and the file it is in."""
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        named = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        yield from ((name, folder / Path(file).name) for name, file in named.items())
        return
    with safe_open(folder / "model.safetensors", framework="pt") as opened:
        yield from ((name, folder / "model.safetensors") for name in opened.keys())  # noqa: SIM118 - not a mapping


def _differ(places: dict[str, Path], one: str, other: str) -> bool:
    """Whether two tensors of the files differ; some rows are read at a time."""
    with ExitStack() as stack:
        first, second = (
            stack.enter_context(safe_open(places[name], framework="pt")).get_slice(name) for name in (one, other)
        )
        if first.get_shape() != second.get_shape():
            return True
        starts = range(0, first.get_shape()[0], _ROWS_AT_ONCE)
        return any(
            not torch.equal(first[start : start + _ROWS_AT_ONCE], second[start : start + _ROWS_AT_ONCE])
            for start in starts
        )
