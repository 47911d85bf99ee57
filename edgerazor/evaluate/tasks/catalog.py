"""Which tasks there are: files of lm-evaluation-harness 0.4.13, and what their rows hold here."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from edgerazor.errors import DataError
from edgerazor.evaluate.tasks.keys import INDEX, INDICES, KEYWORDS, NAMES, NUMBER, TEXT, TEXTS, Key
from edgerazor.evaluate.videos.catalog import VIDEO_TASKS
from edgerazor.schemas.messages import nearest

_CHOICES = {"question": TEXT, "choices": TEXTS, "label": INDEX}


@dataclass(frozen=True)
class TaskDefinition:
    """A task as lm-evaluation-harness configures it, for rows in files.

    Attributes:
        name: of lm-evaluation-harness.
        file: of the harness, below its folder of tasks: prompts, metrics, filters, few-shot count and version.
        keys: that a row has.
        changes: to the harness's configuration, where the rows have other columns than the hub's.
        options: how many choices an index chooses from; None: the row has them under `choices`.
        shots: name of the split that examples come from, in a file NAME.SPLIT.jsonl; None: there are none in the
            prompt, or they stand in it already.
        rows: name of the file of rows where it is not the task's.
        runs_code: answers are programs.
        by_subject: a task of the harness for each `subject` of the rows.
    """

    name: str
    file: str
    keys: Mapping[str, Key] = field(default_factory=lambda: _CHOICES)
    changes: Mapping[str, Any] = field(default_factory=dict)
    options: int | None = None
    shots: str | None = "train"
    rows: str = ""
    runs_code: bool = False
    by_subject: bool = False

    @property
    def file_of_rows(self) -> str:
        """Name of the file of rows, without its ending."""
        return self.rows or self.name


def _choices(name: str, file: str, text: str, **changes: Any) -> TaskDefinition:
    """A task on rows of question, choices and label."""
    changed = {"doc_to_text": text, "doc_to_target": "label", "doc_to_choice": "choices", **changes}
    return TaskDefinition(name, file, changes=changed)


def _right_option(row: Any) -> int:
    return int(row["label"])


def _behind_blank(row: Any) -> str:
    return str(row["question"].partition("_")[2]).strip()


def _up_to_option(row: Any) -> list[str]:
    before = row["question"].partition("_")[0]
    return [before + option for option in row["choices"]]


def _ethics(name: str, file: str, *columns: str, label: bool = True) -> TaskDefinition:
    keys = {**dict.fromkeys(columns, TEXT), **({"label": INDEX} if label else {})}
    return TaskDefinition(name, f"hendrycks_ethics/{file}", keys, options=2)


_QUESTION = "Question: {{question}}\nAnswer:"
_BLANK: dict[str, Callable[[Any], Any]] = {
    "doc_to_text": _right_option,
    "doc_to_target": _behind_blank,
    "doc_to_choice": _up_to_option,
}
_PROGRAM = {"prompt": TEXT, "test": TEXT, "entry_point": TEXT}
_MC2: dict[str, Key] = {"question": TEXT, "mc2_targets": {"choices": TEXTS, "labels": INDICES}}
TASKS: Mapping[str, TaskDefinition] = {
    definition.name: definition
    for definition in (
        _choices("arc_easy", "arc/arc_easy", _QUESTION),
        _choices("arc_challenge", "arc/arc_challenge", _QUESTION),
        _choices("hellaswag", "hellaswag/hellaswag", "question"),
        TaskDefinition(
            "boolq", "super_glue/boolq/default", {"passage": TEXT, "question": TEXT, "label": INDEX}, options=2
        ),
        _choices("social_iqa", "siqa/siqa", "Q: {{question}}\nA:"),
        _choices("openbookqa", "openbookqa/openbookqa", "question"),
        _choices("piqa", "piqa/piqa", _QUESTION),
        TaskDefinition("winogrande", "winogrande/default", changes=_BLANK),
        TaskDefinition(
            "blimp",
            "blimp/adjunct_island",
            {"good": TEXT, "bad": TEXT},
            {"doc_to_choice": "{{[good, bad]}}"},
            shots=None,
        ),
        _ethics("ethics_cm", "commonsense", "input"),
        _ethics("ethics_deontology", "deontology", "scenario", "excuse"),
        _ethics("ethics_justice", "justice", "scenario"),
        _ethics("ethics_utilitarianism", "utilitarianism", "activity", "baseline", label=False),
        _ethics("ethics_virtue", "virtue", "scenario", "trait"),
        TaskDefinition("truthfulqa_mc2", "truthfulqa/truthfulqa_mc2", _MC2, shots=None),
        TaskDefinition(
            "mmlu",
            "mmlu/default",
            {"question": TEXT, "subject": TEXT, "choices": TEXTS, "answer": INDEX},
            options=4,
            shots="dev",
            by_subject=True,
        ),
        TaskDefinition("gsm8k", "gsm8k/gsm8k", {"question": TEXT, "answer": TEXT}),
        TaskDefinition(
            "ifeval",
            "ifeval/ifeval",
            {"key": NUMBER, "prompt": TEXT, "instruction_id_list": NAMES, "kwargs": KEYWORDS},
            shots=None,
        ),
        TaskDefinition("humaneval", "humaneval/humaneval", _PROGRAM, shots=None, runs_code=True),
        TaskDefinition(
            "humaneval_instruct",
            "humaneval/humaneval_instruct",
            _PROGRAM,
            shots=None,
            rows="humaneval",
            runs_code=True,
        ),
    )
}
ETHICS = tuple(name for name in TASKS if name.startswith("ethics_"))
_CHOSEN = ("arc_easy", "arc_challenge", "hellaswag", "boolq", "piqa", "winogrande", "social_iqa", "openbookqa")
_OTHERS = (*ETHICS, "truthfulqa_mc2", "mmlu", "gsm8k")
GROUPS = MappingProxyType(
    {
        "hendrycks_ethics": ETHICS,
        "edgerazor_base": (*_CHOSEN, *_OTHERS, "humaneval"),
        "edgerazor_instruct": (*_CHOSEN, *_OTHERS, "humaneval_instruct", "ifeval"),
    }
)
# Asked through the chat template in the published group; everything else there is asked without it.
CHAT = frozenset({"humaneval_instruct", "ifeval"})


@dataclass(frozen=True)
class Choice:
    """What was asked for.

    Attributes:
        tasks: in the order in which they were named.
        alone: names of those that stood in no group, so that one that cannot run is an error.
        chat: names of those that a published group asks through the chat template.
    """

    tasks: tuple[TaskDefinition, ...]
    alone: frozenset[str]
    chat: frozenset[str]


def choose_tasks(names: Sequence[str]) -> Choice:
    """Tasks by their names or groups'.

    Raises:
        DataError: a name is unknown.
    """
    asked = {name: None for part in names for name in part.replace(",", " ").split()}
    known = [*TASKS, *GROUPS, *VIDEO_TASKS]
    if not asked:
        raise DataError(f"--tasks: names no task; there are: {', '.join(known)}")
    for name in asked:
        if name not in TASKS and name not in GROUPS:
            raise DataError(f"--tasks: there is no task '{name}'{nearest(name, known)}")
    found = {member: TASKS[member] for name in asked for member in GROUPS.get(name, (name,))}
    alone = frozenset(asked.keys() & TASKS.keys())
    chat = (CHAT & found.keys()) - alone
    return Choice(tuple(found.values()), alone, chat)
