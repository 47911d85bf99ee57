"""Rows of tasks from the files that the public data sets come in."""

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from edgerazor.core.atomic import write_text
from edgerazor.data.bad_rows import BadRows
from edgerazor.data.files import read_files
from edgerazor.errors import DataError
from edgerazor.evaluate.tasks.catalog import TASKS, TaskDefinition
from edgerazor.evaluate.tasks.rows import check_row
from edgerazor.evaluate.videos.catalog import VIDEO_TASKS, VideoTask, letters_of
from edgerazor.schemas.data import Source
from edgerazor.schemas.messages import nearest

Row = Mapping[str, Any]


def _lettered(row: Row, question: str) -> dict[str, Any]:
    """ARC and OpenBookQA, as on the hub or nested as in Allen AI's own files; a label names the right choice."""
    choices = row["choices"] if "choices" in row else row["question"]["choices"]
    if isinstance(choices, list):
        choices = {key: [choice[key] for choice in choices] for key in ("text", "label")}
    text = row["question"]["stem"] if isinstance(row.get("question"), dict) else row[question]
    return {"question": text, "choices": choices["text"], "label": choices["label"].index(row["answerKey"].strip())}


def _arc(row: Row) -> dict[str, Any]:
    return _lettered(row, "question")


def _openbookqa(row: Row) -> dict[str, Any]:
    return _lettered(row, "question_stem")


def _piqa(row: Row) -> dict[str, Any]:
    return {"question": row["goal"], "choices": [row["sol1"], row["sol2"]], "label": int(row["label"])}


def _social_iqa(row: Row) -> dict[str, Any]:
    choices = [row[f"answer{letter}"] for letter in "ABC"]
    return {"question": f"{row['context']} {row['question']}", "choices": choices, "label": int(row["label"]) - 1}


def _winogrande(row: Row) -> dict[str, Any]:
    choices = [row["option1"], row["option2"]]
    return {"question": row["sentence"], "choices": choices, "label": int(row["answer"]) - 1}


def _hellaswag(row: Row) -> dict[str, Any]:
    question = f"{row['activity_label']}: {row['ctx_a']} {row.get('ctx_b', '').capitalize()}"
    return {
        "question": _clean(question),
        "choices": [_clean(text) for text in row["endings"]],
        "label": int(row["label"]),
    }


def _clean(text: str) -> str:
    """Without the marks of WikiHow, as lm-evaluation-harness's tasks/hellaswag/utils.py takes them out."""
    return re.sub(r"\[.*?\]", "", text.strip().replace(" [title]", ". ")).replace("  ", " ")


def _boolq(row: Row) -> dict[str, Any]:
    label = row["label"] if "label" in row else row["answer"]
    return {"passage": row["passage"], "question": row["question"], "label": int(label)}


def _blimp(row: Row) -> dict[str, Any]:
    return {"good": row["sentence_good"], "bad": row["sentence_bad"]}


def _mmlu(row: Row) -> dict[str, Any]:
    answer = row["answer"]
    index = "ABCD".index(answer) if isinstance(answer, str) and len(answer) == 1 and answer.isalpha() else int(answer)
    return {**_columns(row, "question", "subject"), "choices": list(row["choices"]), "answer": index}


def _truthfulqa(row: Row) -> dict[str, Any]:
    """As on the hub, or as in the authors' own mc_task.json, where each choice names its label."""
    targets = row["mc2_targets"]
    choices, labels = (
        (targets["choices"], targets["labels"]) if "choices" in targets else (targets.keys(), targets.values())
    )
    return {"question": row["question"], "mc2_targets": {"choices": list(choices), "labels": list(map(int, labels))}}


def _ifeval(row: Row) -> dict[str, Any]:
    """A table gives each instruction the keys of all the others, empty; what is empty is left out, as the hub's is."""
    kwargs = [{key: value for key, value in keywords.items() if value is not None} for keywords in row["kwargs"]]
    names = list(row["instruction_id_list"])
    return {"key": int(row["key"]), "prompt": row["prompt"], "instruction_id_list": names, "kwargs": kwargs}


def _virtue(row: Row) -> dict[str, Any]:
    """As on the hub, or as in the authors' own file, where the trait stands behind the scenario."""
    scenario, _, trait = row["scenario"].partition(" [SEP] ")
    return {"scenario": scenario, "trait": trait or row["trait"], "label": int(row["label"])}


def _ethics(*names: str) -> Callable[[Row], dict[str, Any]]:
    return lambda row: {**_columns(row, *names), "label": int(row["label"])}


def _video_mme(row: Row) -> dict[str, Any]:
    """The options come with their letters. A video is looked for by its name on YouTube."""
    options = [re.sub(r"^[A-Z][.):]\s*", "", text) for text in row["options"]]
    found = {"options": options, "video": f"video_mme/{row['videoID']}", "category": row["domain"]}
    return {**_columns(row, "question", "answer", "duration"), **found}


_FOLDERS_OF_MLVU = {
    name: f"{number}_{name}"
    for number, name in enumerate(("plotQA", "needle", "ego", "count", "order", "anomaly_reco", "topic_reasoning"), 1)
}


def _mlvu(row: Row) -> dict[str, Any]:
    """As in the authors' files of multiple choice; a video is looked for in the folder that it comes in."""
    category, options = row["question_type"], list(row["candidates"])
    place = _FOLDERS_OF_MLVU.get(category)
    return {
        "question": row["question"],
        "options": options,
        "answer": letters_of({"options": options})[options.index(row["answer"])],
        "video": "/".join(["mlvu", *([place] if place else []), row["video"]]),
        "category": category,
        "seconds": row["duration"],
    }


def _columns(row: Row, *names: str) -> dict[str, Any]:
    return {name: row[name] for name in names}


def _texts(*names: str) -> Callable[[Row], dict[str, Any]]:
    return lambda row: _columns(row, *names)


_humaneval = _texts("prompt", "test", "entry_point")
_CONVERTERS: Mapping[str, Callable[[Row], dict[str, Any]]] = {
    "arc_easy": _arc,
    "arc_challenge": _arc,
    "hellaswag": _hellaswag,
    "boolq": _boolq,
    "social_iqa": _social_iqa,
    "openbookqa": _openbookqa,
    "piqa": _piqa,
    "winogrande": _winogrande,
    "blimp": _blimp,
    "ethics_cm": _ethics("input"),
    "ethics_deontology": _ethics("scenario", "excuse"),
    "ethics_justice": _ethics("scenario"),
    "ethics_utilitarianism": _texts("activity", "baseline"),
    "ethics_virtue": _virtue,
    "truthfulqa_mc2": _truthfulqa,
    "mmlu": _mmlu,
    "gsm8k": _texts("question", "answer"),
    "ifeval": _ifeval,
    "humaneval": _humaneval,
    "humaneval_instruct": _humaneval,
    "video_mme": _video_mme,
    "mlvu": _mlvu,
}


class _EveryColumn:
    """Holds every name."""

    def __contains__(self, _: object) -> bool:
        return True


def convert_rows(
    source: Path, name: str, folder: Path, *, split: str | None = None, shots: bool = False
) -> tuple[Path, int]:
    """Write NAME.jsonl of a task from a public file.

    Args:
        source: JSON lines, JSON, CSV or Parquet with the columns of the hub, or a folder of such files.
        name: of the task.
        folder: where to write to.
        split: of a folder.
        shots: the rows are examples, for NAME.SPLIT.jsonl.

    Returns:
        The path written and the number of rows.

    Raises:
        DataError: no such task, the source cannot be read, or a row has other columns or no answer.
    """
    if name not in _CONVERTERS:
        raise DataError(f"--task: there is no task '{name}'{nearest(name, _CONVERTERS)}")
    definition, bad = _definition(name), BadRows()
    if shots and definition.shots is None:
        raise DataError(f"--shots: {name} takes no examples, or has them in its prompt already")
    tables = read_files(Source(path=str(source), split=split), _EveryColumn(), bad)
    if bad.count:
        raise DataError("\n".join(bad.shown))
    rows = [
        _convert(row, f"{table.name}:{table.number(index)}", name)
        for table in tables
        for index, row in enumerate(table.rows(range(len(table))))
    ]
    if not rows:
        raise DataError(f"{source}: holds no rows")
    path = folder / (definition.file_of_rows + (f".{definition.shots}" if shots else "") + ".jsonl")
    folder.mkdir(parents=True, exist_ok=True)
    write_text(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    return path, len(rows)


def _convert(row: Row, where: str, name: str) -> dict[str, Any]:
    try:
        converted = _CONVERTERS[name](row)
    except KeyError as error:
        raise DataError(f"{where}: {name}: has no column {error}; it has: {', '.join(row) or 'none'}") from error
    except (TypeError, ValueError, AttributeError) as error:
        raise DataError(f"{where}: {name}: is not as the hub has it, or its answer is not public: {error}") from error
    definition = _definition(name)
    return (
        definition.keep(converted, where)
        if isinstance(definition, VideoTask)
        else check_row(converted, where, definition)
    )


def _definition(name: str) -> TaskDefinition | VideoTask:
    return VIDEO_TASKS[name] if name in VIDEO_TASKS else TASKS[name]
