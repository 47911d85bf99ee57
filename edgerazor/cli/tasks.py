"""`evaluate --tasks`: the table of a model and its teacher on tasks."""

import logging
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bars
from rich.table import Table

from edgerazor.cli.tables import console
from edgerazor.errors import DataError

if TYPE_CHECKING:
    from edgerazor.evaluate.side_by_side import Progress, Run
    from edgerazor.evaluate.tasks.results import Score, TaskRow, TasksResult


def run_tasks(
    model: Path,
    tasks: list[str],
    *,
    data: Path | None,
    teacher: str | None,
    output: Path | None,
    prompts: dict[str, Any],
    shown: dict[str, Any],
    **settings: Any,
) -> None:
    """Measure, write the JSON if a path is given, and print the table.

    Args:
        model: what is measured.
        tasks: names, several with commas between them.
        data: folder of the rows.
        teacher: is measured beside it.
        output: path of the JSON.
        prompts: attributes of `Prompts`.
        shown: how videos are shown, `frames` and `max_pixels`; None where nothing is said.
        settings: those of `TaskRun`.

    Raises:
        DataError: there is no folder, or options do not belong to the tasks.
    """
    if data is None:
        raise DataError("--tasks needs --data: a folder with NAME.jsonl of each task; nothing is downloaded")
    # Heeded if nothing that reads them is imported yet: a table is shown, not a library's bars and remarks.
    os.environ.update({"TQDM_DISABLE": "1", "HF_DATASETS_OFFLINE": "1"})
    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    from edgerazor.core.atomic import write_text
    from edgerazor.core.discovery import load_plugins
    from edgerazor.evaluate.side_by_side import evaluate_tasks

    runs = _runs(tasks, data, prompts, shown, settings)
    with _bars() as progress:
        result = evaluate_tasks(
            model, runs, registry=load_plugins(), teacher=None if teacher is None else Path(teacher), progress=progress
        )
    if output is not None:
        write_text(output, result.to_json())
    console().print(tasks_table(result))
    if settings["limit"] is not None:
        typer.echo(f"the first {settings['limit']} rows of each task; --limit cut off the rest")
    for name, reason in result.missing.items():
        typer.echo(f"missing: {name}: {reason}", err=True)


def _runs(
    tasks: list[str], data: Path, prompts: dict[str, Any], shown: dict[str, Any], settings: dict[str, Any]
) -> "list[Run]":
    """Those about videos first: a model that cannot see is refused before it has answered anything."""
    from edgerazor.evaluate.tasks.catalog import choose_tasks
    from edgerazor.evaluate.videos.catalog import separate

    texts, videos = separate(tasks)
    given = {key: value for key, value in shown.items() if value is not None}
    if given and not videos:
        raise DataError(f"--{next(iter(given)).replace('_', '-')} is of videos, which none of these tasks shows")
    if texts or not videos:
        choose_tasks(texts)
    runs: list[Run] = []
    if videos:
        from edgerazor.evaluate.videos.run import VideoRun

        kept = {key: settings[key] for key in ("limit", "cache")}
        runs.append(VideoRun(videos, data, system=_message_of_videos(prompts), **kept, **given))
    if texts:
        from edgerazor.evaluate.tasks.run import Prompts, TaskRun

        runs.append(TaskRun(texts, data, prompts=Prompts(**prompts), **settings))
    return runs


def _message_of_videos(prompts: dict[str, Any]) -> str | None:
    """The system message; DataError for options by which videos are not asked about."""
    for key, option in (("num_fewshot", "--num-fewshot"), ("multiturn", "--fewshot-as-multiturn")):
        if prompts[key]:
            raise DataError(f"{option}: no examples stand before a video; ask the other tasks in a run of their own")
    if prompts["chat_template"] is False:
        raise DataError("--no-chat-template: videos are shown by the chat template alone")
    if prompts["thinking"] is not None:
        raise DataError("--thinking, --no-thinking: the answer to a video is its first token, without a thought")
    return prompts["system"]


def default_cache() -> Path:
    """Where answers are kept if nobody says otherwise."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "edgerazor" / "task_answers.sqlite"


def tasks_table(result: "TasksResult") -> Table:
    """A metric of a task in each line, in percent with its standard error."""
    table = Table("task", "metric", box=None, pad_edge=False)
    compared = any(row.teacher is not None for row in result.rows)
    for title in (
        "shots",
        "items",
        "model",
        *(("teacher", "only model right", "only teacher right", "p") if compared else ()),
    ):
        table.add_column(title, justify="right")
    if compared:
        table.add_column("difference")
    for row in result.rows:
        table.add_row(row.task, row.metric, str(row.shots), str(row.items), _percent(row.student), *_compared(row))
    return table


def _compared(row: "TaskRow") -> tuple[str, ...]:
    if row.teacher is None:
        return ()
    found = row.comparison
    if found is None:
        return _percent(row.teacher), "-", "-", "-", "-"
    return _percent(row.teacher), str(found.student_only), str(found.teacher_only), f"{found.p:.3f}", found.verdict


def _percent(score: "Score") -> str:
    return f"{100 * score.value:.2f}" + ("" if score.error is None else f" ± {100 * score.error:.2f}")


@contextmanager
def _bars() -> "Iterator[Progress]":
    """Give a function that draws a bar for each model, with the time left; a line for each tenth where it cannot."""
    if not sys.stderr.isatty():
        yield _Lines().show
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Bars(*columns, TimeRemainingColumn(), console=Console(stderr=True), transient=True) as bars:
        lines: dict[str, TaskID] = {}

        def show(name: str, done: int, total: int) -> None:
            if name not in lines:
                lines[name] = bars.add_task(name)
            bars.update(lines[name], completed=done, total=total)

        yield show


class _Lines:
    """Progress for a log: a line for each tenth of a model's requests, with the time left."""

    def __init__(self) -> None:
        self._begun: dict[tuple[str, int], tuple[float, int]] = {}
        self._tenths: dict[tuple[str, int], int] = {}

    def show(self, name: str, done: int, total: int) -> None:
        """Write a line if another tenth is done; answers that were known before the first call took no time."""
        started, known = self._begun.setdefault((name, total), (time.monotonic(), done))
        tenth = 10 * done // max(total, 1)
        if done == known or tenth <= self._tenths.get((name, total), 0):
            return
        self._tenths[name, total] = tenth
        left = timedelta(seconds=round((time.monotonic() - started) / (done - known) * (total - done)))
        typer.echo(f"{name}: {done} of {total} requests, {left} left", err=True)
