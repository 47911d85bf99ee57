"""Answers to questions about videos, counted: shares with standard errors, in lm-evaluation-harness's format."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from edgerazor.evaluate.videos.catalog import VideoTask, parts_of

ACC, MEAN, LETTER = "acc", "acc_mean_of_parts", "letter_is_likeliest"
_FILTER = "none"
Items = list[dict[str, Any]]


@dataclass(frozen=True)
class Answer:
    """What a model says to a question.

    Attributes:
        letter: of the option that is likeliest.
        is_likeliest: no other token of the vocabulary is likelier than the letter.
    """

    letter: str
    is_likeliest: bool


def results_of(
    tasks: Sequence[VideoTask],
    rows: Mapping[str, Sequence[Mapping[str, Any]]],
    answers: Mapping[str, Sequence[Answer]],
    whole: Mapping[str, Sequence[Mapping[str, Any]]],
) -> dict[str, Any]:
    """Figures of each task and of its parts, with every item under `samples`.

    Args:
        tasks: in order.
        rows: of each task by its name.
        answers: to these rows.
        whole: all rows of each file, of which `rows` may be the first.
    """
    samples: dict[str, Items] = {}
    figures: dict[str, dict[str, Any]] = {}
    counts: dict[str, int] = {}
    for task in tasks:
        pairs = zip(rows[task.name], answers[task.name], strict=True)
        items = [_item(number, row, answer) for number, (row, answer) in enumerate(pairs)]
        parts = {name: [items[number] for number in numbers] for name, numbers in parts_of(task, rows[task.name])}
        samples |= {task.name: items, **parts}
        counts[task.name] = len(whole[task.name])
        counts |= {name: len(numbers) for name, numbers in parts_of(task, whole[task.name])}
        figures[task.name] = _figure(ACC, *share_of([item[ACC] for item in items]))
        if task.mean_of_parts:
            figures[task.name] |= _figure(MEAN, *_mean_of(parts))
        figures[task.name] |= _figure(LETTER, *share_of([item[LETTER][0] for item in items]))
        figures |= {name: _figure(ACC, *share_of([item[ACC] for item in part])) for name, part in parts.items()}
    asked = {name: {"original": counts[name], "effective": len(items)} for name, items in samples.items()}
    return {
        "results": figures,
        "samples": samples,
        "n-samples": asked,
        "n-shot": dict.fromkeys(samples, 0),
        "group_subtasks": {},
    }


def _item(number: int, row: Mapping[str, Any], answer: Answer) -> dict[str, Any]:
    right = int(answer.letter == row["answer"])
    found = {"doc_id": number, "filter": _FILTER, "answer": answer.letter, ACC: right}
    # Lists: these are not right or wrong item by item, and no test compares them so.
    return {**found, LETTER: [int(answer.is_likeliest)], MEAN: [row["category"], right]}


def _figure(metric: str, value: float, error: float | None) -> dict[str, Any]:
    return {f"{metric},{_FILTER}": value, f"{metric}_stderr,{_FILTER}": error}


def share_of(values: Sequence[int]) -> tuple[float, float | None]:
    """Mean of zeros and ones, and its standard error by the sample's deviation; None of a single one."""
    share, count = sum(values) / len(values), len(values)
    return share, math.sqrt(share * (1 - share) / (count - 1)) if count > 1 else None


def _mean_of(parts: Mapping[str, Items]) -> tuple[float, float | None]:
    """Mean of the shares of the parts, whose errors are independent; None if one of them is unknown."""
    found = [share_of([item[ACC] for item in items]) for items in parts.values()]
    errors = [error for _, error in found if error is not None]
    error = math.hypot(*errors) / len(found) if len(errors) == len(found) else None
    return sum(share for share, _ in found) / len(found), error
