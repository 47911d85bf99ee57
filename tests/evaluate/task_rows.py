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
    "ethics_cm": [{"input": "I fed Bo.", "label": 0}, {"input": "I took his bread.", "label": 1}],
    "ethics_deontology": [{"scenario": "Feed Bo?", "excuse": "No, he left.", "label": 1}],
    "ethics_justice": [{"scenario": "I fed Bo, as he is tall.", "label": 0}],
    "ethics_utilitarianism": [{"activity": "I ate.", "baseline": "I ate nothing."}],
    "ethics_virtue": [{"scenario": "Ann fed Bo.", "trait": "cruel", "label": 0}],
    "truthfulqa_mc2": [
        {"question": "f3(4)?", "mc2_targets": {"choices": ["12", "3 + 4", "return x"], "labels": [1, 0, 1]}},
        {"question": "What do cats eat?", "mc2_targets": {"choices": ["mice", "stones"], "labels": [1, 0]}},
    ],
    "mmlu": [
        {"question": f"f3({number})?", "subject": subject, "choices": ["1", "2", "3", "4"], "answer": number}
        for subject in ("abstract_algebra", "virology", "astronomy")
        for number in range(3)
    ],
    "gsm8k": [
        {"question": f"Ann has {number} cups and buys 2.", "answer": f"She has {number + 2}.\n#### {number + 2}"}
        for number in range(7)
    ],
    "ifeval": [
        {
            "key": 1,
            "prompt": "Write without commas.",
            "instruction_id_list": ["punctuation:no_comma", "keywords:existence"],
            "kwargs": [{}, {"keywords": ["return"]}],
        },
        {"key": 2, "prompt": "f3?", "instruction_id_list": ["change_case:english_lowercase"], "kwargs": [{}]},
    ],
    "humaneval": [
        {
            "prompt": "def f(x):\n    return x\n",
            "test": "def check(candidate):\n    assert candidate(1) == 1\n",
            "entry_point": "f",
        },
        {"prompt": "def f(x):\n    ", "test": "def check(candidate):\n    assert False\n", "entry_point": "f"},
    ],
    "blimp": [{"good": "Cats sleep.", "bad": "Cats sleeps."}, {"good": "def f(x):", "bad": "def def x:"}],
}
CHOSEN = ("arc_easy", "arc_challenge", "hellaswag", "social_iqa", "openbookqa", "piqa", "boolq", "winogrande", "blimp")


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
