"""Tasks and groups of lm-evaluation-harness from its own files, on rows that were read already."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from datasets import Dataset

from edgerazor.errors import DataError
from edgerazor.evaluate.tasks import programs
from edgerazor.evaluate.tasks.catalog import ETHICS, TaskDefinition
from edgerazor.evaluate.tasks.installed import FOLDER, AggMetricConfig, ConfigurableTask, Group, load_yaml
from edgerazor.evaluate.tasks.sentences import check_sentences
from edgerazor.schemas.messages import nearest

SEED = 1234  # lm-evaluation-harness draws examples by it
_LEFT_OUT = ("tag", "dataset_path", "dataset_name", "dataset_kwargs", "process_docs", "should_decontaminate")
Rows = Sequence[Mapping[str, Any]]


class RowsTask(ConfigurableTask):
    """A task of lm-evaluation-harness.

    Args:
        definition: which one.
        rows: as `read_rows` gives them.
        shots: rows for examples in the prompt; None takes them from `rows`, without the one that is asked.
        num_fewshot: how many; None is the harness's own number, which also stays where that is fixed to 0.
        subject: of `rows`, where the definition has a task for each.

    Raises:
        DataError: there are not enough rows for the examples.
    """

    def __init__(
        self,
        definition: TaskDefinition,
        rows: Rows,
        *,
        shots: Rows | None = None,
        num_fewshot: int | None = None,
        subject: str | None = None,
    ):
        config = configuration(definition, subject)
        split = config.get("test_split") or config["validation_split"]
        if shots is None:
            config.update(training_split=None, validation_split=None, test_split=split, fewshot_split=split)
        of_shots = config.get("fewshot_split") or config.get("training_split") or split
        self._splits = {of_shots: shots or rows, split: rows}
        count = config.get("num_fewshot")
        if num_fewshot is not None and count != 0:
            config["num_fewshot"] = num_fewshot
        config["num_fewshot"] = needed = config.get("num_fewshot") or 0
        if shots is None and needed >= len(rows):
            raise DataError(
                f"{config['task']}: {needed} examples are to stand before each question; without "
                f"{definition.file_of_rows}.{definition.shots}.jsonl they come from the other rows, of {len(rows)}"
            )
        if shots is not None and needed > len(shots):
            raise DataError(f"{config['task']}: {needed} examples are to stand before each question, got {len(shots)}")
        super().__init__(config=config)
        self.set_fewshot_seed(SEED)

    def download(self, *_: Any, **__: Any) -> None:
        """Take the rows; nothing is downloaded."""
        self.dataset = {name: Dataset.from_list([dict(row) for row in rows]) for name, rows in self._splits.items()}


def configuration(definition: TaskDefinition, subject: str | None = None) -> dict[str, Any]:
    """What the harness's file says, with the changes of the definition."""
    file = definition.file if subject is None else f"{definition.file}/mmlu_{subject}"
    if definition.name == "ifeval":
        check_sentences()
    # The functions that are named beside HumanEval are not imported: importing them downloads a metric.
    loaded = load_yaml(FOLDER / f"{file}.yaml", resolve_func=not definition.runs_code)
    config = {key: value for key, value in loaded.items() if key not in _LEFT_OUT} | dict(definition.changes)
    if subject is None:
        config["task"] = definition.name
    if definition.runs_code:
        config["metric_list"] = [
            {"metric": programs.pass_at_k, "aggregation": "mean", "higher_is_better": True, "k": [1]}
        ]
        build = programs.build_predictions_instruct if "gen_prefix" in config else programs.build_predictions
        custom = {"function": "custom", "filter_fn": build}
        config["filter_list"] = [{"name": config["filter_list"][0]["name"], "filter": [custom]}]
    return config


def rows_of_subjects(rows: Rows, path: Path) -> dict[str, Rows]:
    """The rows of each subject of MMLU, in the order of the file.

    Raises:
        DataError: there is no such subject.
    """
    known = {file.stem.removeprefix("mmlu_") for file in (FOLDER / "mmlu/default").glob("mmlu_*.yaml")}
    found: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        subject = row["subject"]
        if subject not in known:
            raise DataError(f"{path}: subject: there is no subject '{subject}'{nearest(subject, known)}")
        found.setdefault(subject, []).append(row)
    return dict(found)


def build_groups(tasks: Mapping[str, RowsTask]) -> dict[str, Group]:
    """MMLU's groups as the harness has them, over the subjects that are there, and a mean of all parts of ETHICS.

    The harness has no group of ETHICS; like MMLU's, its mean is one over all items.
    """
    groups = {}
    subjects = [name for name in tasks if name.startswith("mmlu_")]
    if subjects:
        groups["mmlu"] = whole = Group.from_config(_group_config("_mmlu"))
        for name in mmlu_parts():
            part = Group.from_config(_group_config(f"_{name}"))
            tag = f"{name}_tasks"
            for subject in subjects:
                if load_yaml(FOLDER / f"mmlu/default/{subject}.yaml", resolve_func=False)["tag"] == tag:
                    part.add(tasks[subject])
            if len(part):
                whole.add(part)
                groups[name] = part
    if tasks.keys() >= set(ETHICS):
        ethics = Group("hendrycks_ethics", aggregate_metric_list=[AggMetricConfig("acc")])
        for name in ETHICS:
            ethics.add(tasks[name])
        groups["hendrycks_ethics"] = ethics
    return groups


def mmlu_parts() -> list[str]:
    """Names of the groups that MMLU is made of."""
    return list(load_yaml(FOLDER / "mmlu/default/_mmlu.yaml", resolve_func=False)["task"])


def _group_config(file: str) -> dict[str, Any]:
    return dict(load_yaml(FOLDER / f"mmlu/default/{file}.yaml", resolve_func=False))
