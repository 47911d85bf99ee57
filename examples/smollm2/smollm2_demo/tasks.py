"""Multiple choice by log likelihood: the choice counts whose text is likeliest, per byte, behind the question."""

import gzip
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from edgerazor.core.contracts import Runtime
from edgerazor.errors import DataError

KEYS = {"question": str, "choices": list, "label": int}


@dataclass(frozen=True)
class Item:
    """A question, its choices, and the index of the right one."""

    question: str
    choices: tuple[str, ...]
    label: int


def read_items(path: Path, limit: int) -> list[Item]:
    """The first items of a JSON-lines file, gzip-compressed or not.

    Raises:
        DataError: no such file, no items, or a line that is none.
    """
    opened = gzip.open if path.suffix == ".gz" else open
    try:
        with opened(path, "rt", encoding="utf-8") as lines:
            items = [_item(line, f"{path}:{number}") for number, line in enumerate(islice(lines, limit), 1)]
    except (OSError, UnicodeDecodeError, EOFError) as error:
        raise DataError(f"{path}: cannot be read: {error}") from error
    if not items:
        raise DataError(f"{path}: holds no items; expected lines with {', '.join(KEYS)}")
    return items


def _item(line: str, where: str) -> Item:
    try:
        content = json.loads(line)
    except json.JSONDecodeError as error:
        raise DataError(f"{where}: is no JSON: {error.msg}") from error
    fits = isinstance(content, dict) and all(isinstance(content.get(key), kind) for key, kind in KEYS.items())
    if not fits or not 0 <= content["label"] < len(content["choices"]) or not all(map(_is_text, content["choices"])):
        raise DataError(f"{where}: expected an object with question (text), choices (texts) and label (index of one)")
    return Item(content["question"], tuple(content["choices"]), content["label"])


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value)


def score(runtime: Runtime, items: list[Item]) -> Mapping[str, float]:
    """Share of right answers, with the standard error that so few items have."""
    right = sum(_chosen(runtime, item) == item.label for item in items)
    share = right / len(items)
    return {"accuracy": share, "error": math.sqrt(share * (1 - share) / len(items)), "items": len(items)}


def _chosen(runtime: Runtime, item: Item) -> int:
    prompt = f"Question: {item.question}\nAnswer:"
    values = [log_likelihood(runtime, prompt, f" {choice}") / len(choice.encode()) for choice in item.choices]
    return int(np.argmax(values))


def log_likelihood(runtime: Runtime, prompt: str, continuation: str) -> float:
    """Log probability of a continuation, in nats: of the tokens behind those that it shares with the prompt."""
    before, whole = runtime.encode_text(prompt), runtime.encode_text(prompt + continuation)
    equal = (index for index, pair in enumerate(zip(before, whole, strict=False)) if pair[0] != pair[1])
    start = max(next(equal, min(len(before), len(whole))), 1)
    runtime.restart()
    logits = runtime.feed(whole[:-1], every=True)[start - 1 :].astype(np.float64)
    top = logits.max(-1)
    normal = top + np.log(np.exp(logits - top[:, None]).sum(-1))
    return float((logits[np.arange(len(normal)), whole[start:]] - normal).sum())
