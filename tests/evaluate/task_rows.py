"""Rows made up for tests, in the form of each task."""

import gzip
import json
from pathlib import Path
from typing import Any

CHOICES = [
    {"question": "What do cats eat?", "choices": ["mice", "stones", "clouds of dust"], "label": 0},
    {"question": "Where is the moon?", "choices": ["in a box", "in the sky"], "label": 1},
    {"question": "f3(4)?", "choices": ["12", "3 + 4", "return x", "len('word3')"], "label": 0},
    {"question": "Why?", "choices": ["because", "return x * 7"], "label": 1},
]
ROWS: dict[str, list[dict[str, Any]]] = {
    **dict.fromkeys(("arc_easy", "arc_challenge", "hellaswag", "social_iqa", "openbookqa", "piqa"), CHOICES),
    "boolq": [
        {"passage": "Ants are small.", "question": "are ants large", "label": 0},
        {"passage": "Ants are small.", "question": "are ants small", "label": 1},
    ],
    "winogrande": [
        {"question": "Ann fed Bo since _ was hungry.", "choices": ["Ann", "Bo"], "label": 1},
        {"question": "The cup fits the box as the _ is big.", "choices": ["cup", "box"], "label": 1},
        {"question": "Ann thanked Bo as _ had helped.", "choices": ["Ann", "Bo"], "label": 1},
    ],
    "blimp": [{"good": "Cats sleep.", "bad": "Cats sleeps."}, {"good": "def f(x):", "bad": "def def x:"}],
}


def save_rows(folder: Path, rows: dict[str, list[dict[str, Any]]] = ROWS) -> Path:
    """The rows as a folder for `--data`; one of the files is compressed."""
    folder.mkdir(exist_ok=True)
    for name, lines in rows.items():
        text = "".join(json.dumps(line) + "\n" for line in lines).encode()
        if name == "piqa":
            (folder / f"{name}.jsonl.gz").write_bytes(gzip.compress(text))
        else:
            (folder / f"{name}.jsonl").write_bytes(text)
    return folder
