"""Rows made up for tests, with the columns of the public data sets."""

from typing import Any

_LETTERED = {"choices": {"text": ["mice", "stones"], "label": ["A", "B"]}, "answerKey": "A"}
HUB_ROWS: dict[str, dict[str, Any]] = {
    "arc_easy": {"id": "1", "question": "What do cats eat?", **_LETTERED},
    "arc_challenge": {
        "id": "1",
        "question": "What?",
        "choices": {"text": ["a", "b"], "label": ["1", "2"]},
        "answerKey": "2",
    },
    "openbookqa": {"id": "1", "question_stem": "Cats eat", **_LETTERED},
    "piqa": {"goal": "Open a box", "sol1": "lift the lid", "sol2": "lift the floor", "label": 0},
    "social_iqa": {
        **{"context": "Ann fed Bo.", "question": "Why?", "label": "2"},
        **{"answerA": "for fun", "answerB": "Bo was hungry", "answerC": "by chance"},
    },
    "winogrande": {"sentence": "Ann fed Bo as _ was hungry.", "option1": "Ann", "option2": "Bo", "answer": "2"},
    "hellaswag": {
        **{"activity_label": "Baking", "ctx_a": "[header] How to bake [title] Take flour.", "ctx_b": "the baker"},
        **{"endings": ["[step] takes  flour.", "sleeps."], "label": "0"},
    },
    "boolq": {"passage": "Ants are small.", "question": "are ants small", "label": 1},
    "ethics_cm": {"label": 1, "input": "I took his bread.", "is_short": True, "edited": False},
    "ethics_deontology": {"label": 1, "scenario": "Could you feed Bo?", "excuse": "No, he left.", "group_id": 3},
    "ethics_justice": {"label": 0, "scenario": "I fed Bo, as he is tall."},
    "ethics_utilitarianism": {"activity": "I ate.", "baseline": "I ate nothing.", "rating": ""},
    "ethics_virtue": {"label": 0, "scenario": "Ann fed Bo.", "trait": "cruel"},
    "truthfulqa_mc2": {
        "question": "What do cats eat?",
        "mc1_targets": {"choices": ["Mice.", "Stones."], "labels": [1, 0]},
        "mc2_targets": {"choices": ["Mice.", "Meat.", "Stones."], "labels": [1, 1, 0]},
    },
    "mmlu": {"question": "1 + 1? ", "subject": "abstract_algebra", "choices": ["1", "2", "3", "4"], "answer": 1},
    "gsm8k": {"question": "Ann has 3 cups and buys 2.", "answer": "She has 3 + 2 = <<3+2=5>>5 cups.\n#### 5"},
    "ifeval": {
        **{"key": 1000, "prompt": "Write without commas, in small letters."},
        "instruction_id_list": ["punctuation:no_comma", "keywords:existence"],
        "kwargs": [{"keywords": None}, {"keywords": ["cats"]}],
    },
    "humaneval": {
        **{"task_id": "HumanEval/0", "canonical_solution": "    return a + b\n", "entry_point": "add"},
        "prompt": 'def add(a, b):\n    """The sum."""\n',
        "test": "def check(candidate):\n    assert candidate(1, 2) == 3\n",
    },
    "blimp": {"sentence_good": "Cats sleep.", "sentence_bad": "Cats sleeps.", "UID": "x"},
}
HUB_ROWS["humaneval_instruct"] = HUB_ROWS["humaneval"]
