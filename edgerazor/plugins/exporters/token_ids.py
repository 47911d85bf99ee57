"""Numbers of special tokens, as the files beside a model state them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgerazor.plugins.exporters.common import TOKENIZER, TOKENIZER_CONFIG, read_json


def token_numbers(content: Mapping[str, Any]) -> dict[str, int]:
    """`{text: number}` of all tokens, from the content of a tokenizer.json."""
    vocabulary = content["model"]["vocab"]
    known = vocabulary if isinstance(vocabulary, Mapping) else {}
    return {**known, **{token["content"]: token["id"] for token in content.get("added_tokens", [])}}


def token_text(settings: Mapping[str, Any], name: str) -> str | None:
    """Text of the token that a tokenizer_config.json calls `name` ("eos"), written alone or with settings."""
    stated = settings.get(f"{name}_token")
    text = stated.get("content") if isinstance(stated, Mapping) else stated
    return text if isinstance(text, str) else None


def stated_ids(config: Mapping[str, Any], name: str, rows: int) -> list[int]:
    """Numbers that a config.json or generation_config.json states for `name` ("eos"), those of its text model last.

    Args:
        config: its content.
        name: "bos", "eos", "unk" or "pad".
        rows: of the embedding; numbers beyond it are no tokens of the model.
    """
    found: list[Any] = []
    for part in (config, config.get("text_config") or {}):
        stated = part.get(f"{name}_token_id")
        found += stated if isinstance(stated, list) else [stated]
    return [number for number in dict.fromkeys(found) if isinstance(number, int) and 0 <= number < rows]


def stop_ids(folder: Path, rows: int) -> list[int]:
    """Numbers of all tokens that end a text, ascending: those of generation, model and tokenizer.

    Args:
        folder: with generation_config.json, config.json, tokenizer_config.json and tokenizer.json, as far as they are.
        rows: of the embedding.

    Raises:
        ExportError: one of them is damaged.
    """
    found: set[int] = set()
    for name in ("generation_config.json", "config.json"):
        found |= set(stated_ids(read_json(folder / name, optional=True), "eos", rows))
    text = token_text(read_json(folder / TOKENIZER_CONFIG, optional=True), "eos")
    if text and (folder / TOKENIZER).is_file():
        number = token_numbers(read_json(folder / TOKENIZER)).get(text, rows)
        found |= {number} if number < rows else set()
    return sorted(found)
