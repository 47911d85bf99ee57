"""Which tasks there are: prompts, metrics and few-shot counts of lm-evaluation-harness 0.4.13, for rows in files."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from edgerazor.errors import DataError
from edgerazor.schemas.messages import nearest

BOTH = ("acc", "acc_norm")
CHOICES: Mapping[str, type] = MappingProxyType({"question": str, "choices": list, "label": int})


@dataclass(frozen=True)
class TaskDefinition:
    """A multiple-choice task without examples in the prompt, as lm-evaluation-harness configures it.

    Attributes:
        name: of lm-evaluation-harness, and of the file of rows.
        text: a key of the row, a Jinja template or a function of it: the context; a function that gives an index says
            which of several contexts is right.
        target: likewise: index of the right choice, or the text that goes on behind the chosen context.
        choices: likewise: the texts to choose from.
        metrics: `acc` by log likelihood, `acc_norm` by log likelihood per character.
        keys: that a row has, and their types.
        version: of the task in lm-evaluation-harness.
    """

    name: str
    text: str | Callable[[Any], int]
    target: str | int | Callable[[Any], str] = "label"
    choices: str | tuple[str, ...] | Callable[[Any], list[str]] = "choices"
    metrics: tuple[str, ...] = BOTH
    keys: Mapping[str, type] = field(default_factory=lambda: CHOICES)
    version: float = 1.0

    def config(self) -> dict[str, Any]:
        """The configuration that lm-evaluation-harness takes."""
        metrics = [{"metric": name, "aggregation": "mean", "higher_is_better": True} for name in self.metrics]
        return {
            "task": self.name,
            "output_type": "multiple_choice",
            "test_split": "test",
            "doc_to_text": self.text,
            "doc_to_target": self.target,
            "doc_to_choice": list(self.choices) if isinstance(self.choices, tuple) else self.choices,
            "num_fewshot": 0,
            "metric_list": metrics,
            "metadata": {"version": self.version},
        }


def _right_option(row: Any) -> int:
    return int(row["label"])


def _behind_blank(row: Any) -> str:
    return str(row["question"].partition("_")[2]).strip()


def _up_to_option(row: Any) -> list[str]:
    before = row["question"].partition("_")[0]
    return [before + option for option in row["choices"]]


_QUESTION = "Question: {{question}}\nAnswer:"
TASKS: Mapping[str, TaskDefinition] = {
    definition.name: definition
    for definition in (
        TaskDefinition("arc_easy", _QUESTION),
        TaskDefinition("arc_challenge", _QUESTION),
        TaskDefinition("hellaswag", "question"),
        TaskDefinition(
            "boolq",
            "{{passage}}\nQuestion: {{question}}?\nAnswer:",
            choices=("no", "yes"),
            metrics=("acc",),
            keys={"passage": str, "question": str, "label": int},
            version=2.0,
        ),
        TaskDefinition("social_iqa", "Q: {{question}}\nA:", metrics=("acc",), version=0.0),
        TaskDefinition("openbookqa", "question"),
        TaskDefinition("piqa", _QUESTION),
        TaskDefinition("winogrande", _right_option, _behind_blank, _up_to_option, metrics=("acc",)),
        TaskDefinition("blimp", "", 0, "{{[good, bad]}}", metrics=("acc",), keys={"good": str, "bad": str}),
    )
}
_CODE = "its answers are programs, which are not run here; take lm_eval itself, with --confirm_run_unsafe_code"
NOT_HERE = {
    "hendrycks_ethics": "its five parts have no form as rows here yet",
    "truthfulqa_mc2": "several of its choices are right, which rows here cannot say yet",
    "mmlu": "its 57 subjects have no form as rows here yet",
    "gsm8k": "its answers are written, not chosen, and five examples stand before them; not here yet",
    "humaneval": _CODE,
    "humaneval_instruct": _CODE,
    "ifeval": "it checks written answers by programs of its own; not here yet",
}
_CHOSEN = ("arc_easy", "arc_challenge", "hellaswag", "boolq", "piqa", "winogrande", "social_iqa", "openbookqa")
_OTHERS = ("hendrycks_ethics", "truthfulqa_mc2", "mmlu", "gsm8k")
GROUPS = {
    "edgerazor_base": (*_CHOSEN, *_OTHERS, "humaneval"),
    "edgerazor_instruct": (*_CHOSEN, *_OTHERS, "humaneval_instruct", "ifeval"),
}


def choose_tasks(names: Sequence[str]) -> tuple[list[TaskDefinition], dict[str, str], frozenset[str]]:
    """Tasks by their names or groups'; which of them are not here, and why; which stood in no group.

    Raises:
        DataError: a name is unknown, or asks by itself for a task that is not here.
    """
    asked = {name: None for part in names for name in part.replace(",", " ").split()}
    known = [*TASKS, *GROUPS]
    if not asked:
        raise DataError(f"--tasks: names no task; there are: {', '.join(known)}")
    found: dict[str, TaskDefinition] = {}
    missing: dict[str, str] = {}
    for name in asked:
        if name in NOT_HERE:
            raise DataError(f"--tasks: {name}: {NOT_HERE[name]}")
        if name not in TASKS and name not in GROUPS:
            raise DataError(f"--tasks: there is no task '{name}'{nearest(name, known)}")
        for member in GROUPS.get(name, (name,)):
            if member in TASKS:
                found[member] = TASKS[member]
            else:
                missing[member] = NOT_HERE[member]
    return list(found.values()), missing, frozenset(asked.keys() & TASKS.keys())
