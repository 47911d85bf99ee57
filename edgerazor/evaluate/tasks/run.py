"""Run tasks of lm-evaluation-harness on a model."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgerazor.core.contracts import Runtime
from edgerazor.core.registry import Registry
from edgerazor.errors import DataError, PluginError
from edgerazor.evaluate.side_by_side import Progress
from edgerazor.evaluate.tasks.catalog import TaskDefinition, choose_tasks
from edgerazor.evaluate.tasks.harness import RowsTask, build_groups, rows_of_subjects
from edgerazor.evaluate.tasks.installed import evaluate
from edgerazor.evaluate.tasks.language_model import RuntimeLM
from edgerazor.evaluate.tasks.request_cache import RequestCache, identify_model
from edgerazor.evaluate.tasks.results import merge
from edgerazor.evaluate.tasks.rows import find_file, missing_file, read_rows
from edgerazor.inference.open_runtime import open_runtime
from edgerazor.schemas.preset import local_config

Rows = list[dict[str, Any]]


@dataclass(frozen=True)
class Prompts:
    """How questions are put.

    Attributes:
        num_fewshot: examples before each; None: as many as lm-evaluation-harness puts there.
        chat_template: through the chat template; None: those tasks that a published group asks so.
        multiturn: examples as turns of a dialogue, not inside the one message.
        system: what stands before everything.
        thinking: what the template is told as `enable_thinking`; None says nothing.
    """

    num_fewshot: int | None = None
    chat_template: bool | None = None
    multiturn: bool = False
    system: str | None = None
    thinking: bool | None = None


@dataclass
class TaskRun:
    """Which tasks, on which rows.

    Args:
        tasks: names of tasks and groups.
        data: folder with NAME.jsonl or NAME.jsonl.gz of each.
        limit: at most this many rows of each task, and of each subject of MMLU; None is all.
        cache: file of answers; None keeps none.
        prompts: examples, chat template and system message.
        run_code: run the programs that a model writes.
        batch_size: questions that are read side by side, where the engine can.

    Raises:
        DataError: no such task, folder or file, a row is malformed, or a task is asked for whose answers would have to
            be run.
        PluginError: a task needs a package or a table that is not here.
    """

    tasks: Sequence[str]
    data: Path
    limit: int | None = None
    cache: Path | None = None
    prompts: Prompts = Prompts()
    run_code: bool = False
    batch_size: int = 1
    missing: dict[str, str] = field(init=False, default_factory=dict)
    rows: dict[str, Rows] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        self._choice = choose_tasks(self.tasks)
        self._shots: dict[str, Rows | None] = {}
        for definition in self._choice.tasks:
            try:
                self._read(definition)
            except _CannotRunError as reason:
                if definition.name in self._choice.alone:
                    raise DataError(str(reason)) from None
                self.missing[definition.name] = str(reason)
        if not self.rows:
            raise DataError(f"{self.data}: holds the rows of none of these tasks: {', '.join(self.missing)}")

    def _read(self, definition: TaskDefinition) -> None:
        if definition.runs_code and not self.run_code:
            raise _CannotRunError(
                f"{definition.name}: its answers are programs, which are run on this machine, only with "
                "--confirm-run-unsafe-code; take a container or a machine that holds nothing of value"
            )
        path = find_file(self.data, definition.file_of_rows)
        if path is None:
            raise _CannotRunError(missing_file(self.data, definition.file_of_rows))
        rows = read_rows(path, definition)
        beside = find_file(self.data, f"{definition.file_of_rows}.{definition.shots}") if definition.shots else None
        self._shots[definition.name] = None if beside is None else read_rows(beside, definition)
        try:
            self._build(definition, rows)
        except PluginError as error:
            raise _CannotRunError(str(error)) from None
        self.rows[definition.name] = rows

    def _build(self, definition: TaskDefinition, rows: Rows) -> dict[str, RowsTask]:
        """The task, or one for each subject, by names."""
        shots, count = self._shots[definition.name], self.prompts.num_fewshot
        if not definition.by_subject:
            return {definition.name: RowsTask(definition, rows, shots=shots, num_fewshot=count)}
        path = self.data / definition.file_of_rows
        parts, examples = rows_of_subjects(rows, path), rows_of_subjects(shots or [], path)
        return {
            f"{definition.name}_{subject}": RowsTask(
                definition,
                part,
                shots=None if shots is None else examples.get(subject, []),
                num_fewshot=count,
                subject=subject,
            )
            for subject, part in parts.items()
        }

    def measure(self, path: Path, registry: Registry, progress: Progress | None = None) -> dict[str, Any]:
        """Results of one model in lm-evaluation-harness's format, with every item under `samples`.

        Raises:
            CheckpointError, ExportError: it cannot be loaded or run, or has no chat template and needs one.
        """
        runtime = open_runtime(path, registry=registry, unquantized=True)
        try:
            return self._measure(runtime, path, progress)
        finally:
            runtime.close()

    def _measure(self, runtime: Runtime, path: Path, progress: Progress | None) -> dict[str, Any]:
        fetched = None if path.exists() else local_config(str(path))
        cache = RequestCache(self.cache, identify_model(fetched.parent if fetched else path, runtime.engine))
        shown = None if progress is None else lambda done, total: progress(str(path), done, total)
        found: dict[str, Any] = {}
        try:
            for chat in (False, True):
                chosen = [definition for definition in self._choice.tasks if definition.name in self.rows]
                chosen = [definition for definition in chosen if self._asks_by_template(definition) == chat]
                if chosen:
                    model = RuntimeLM(runtime, cache, shown, self._thinking(chat), self.batch_size)
                    merge(found, self._evaluate(model, chosen, chat))
        finally:
            cache.close()
        config = {"model": "edgerazor", "model_args": f"path={path}", "engine": runtime.engine, "limit": self.limit}
        return {**found, "config": {**config, **vars(self.prompts)}}

    def _asks_by_template(self, definition: TaskDefinition) -> bool:
        asked = self.prompts.chat_template
        return definition.name in self._choice.chat if asked is None else asked

    def _thinking(self, chat: bool) -> bool | None:
        """Published groups are asked without a thought, unless something else is said."""
        published = chat and self.prompts.chat_template is None
        return False if published and self.prompts.thinking is None else self.prompts.thinking

    def _evaluate(self, model: RuntimeLM, definitions: list[TaskDefinition], chat: bool) -> Mapping[str, Any]:
        if chat:
            model.check_template()
        tasks: dict[str, RowsTask] = {}
        for definition in definitions:
            tasks |= self._build(definition, self.rows[definition.name])
        return dict(
            evaluate(
                model,
                {"tasks": tasks, "groups": build_groups(tasks)},
                limit=self.limit,
                bootstrap_iters=1000,
                system_instruction=self.prompts.system,
                apply_chat_template=chat,
                fewshot_as_multiturn=chat and self.prompts.multiturn,
                confirm_run_unsafe_code=self.run_code,
            )
        )


class _CannotRunError(Exception):
    """Why a task cannot be run."""
