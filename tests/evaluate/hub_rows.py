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
    "blimp": {"sentence_good": "Cats sleep.", "sentence_bad": "Cats sleeps.", "UID": "x"},
}
