"""`evaluate`: figures on held-out data, or right answers to tasks; `eval-data`: rows of tasks."""

from pathlib import Path
from typing import Annotated

import typer

from edgerazor.cli.runs import Model
from edgerazor.errors import DataError

Tasks = Annotated[
    list[str] | None,
    typer.Option("--tasks", metavar="NAME,...", help="Tasks or groups, such as arc_easy,piqa; see the guide."),
]
Limit = Annotated[int | None, typer.Option("--limit", min=1, help="At most this many rows of each task.")]
TaskOutput = Annotated[
    Path | None,
    typer.Option("--output", help="JSON of --tasks, as lm-evaluation-harness writes it.", show_default=False),
]
TaskCache = Annotated[
    Path | None,
    typer.Option(
        "--cache",
        help="Answers already computed, by which an interrupted --tasks goes on; absent: in ~/.cache/edgerazor.",
        show_default=False,
    ),
]
HeldOutOverrides = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Replace a value of the recipe's data section, such as data.sequence_length=512, evaluation.batches or "
        "evaluation.batch_size; repeatable. What else the recipe says is fixed in the checkpoint.",
        show_default=False,
    ),
]


def eval_data(
    source: Annotated[
        Path,
        typer.Argument(help="JSON lines, JSON, CSV or Parquet as on the hub, or a folder.", show_default=False),
    ],
    task: Annotated[str, typer.Option("--task", help="Name of the task, such as arc_easy.", show_default=False)],
    output: Annotated[Path, typer.Option("--output", help="Folder for `evaluate --data`.", show_default=False)],
    split: Annotated[str | None, typer.Option("--split", help="Of a folder, such as validation.")] = None,
) -> None:
    """Write the rows of a task, for `evaluate --tasks`, from a file of a public data set."""
    from edgerazor.evaluate.tasks.convert import convert_rows

    path, count = convert_rows(source, task, output, split=split)
    typer.echo(f"wrote {path}: {count} rows")


def evaluate(
    model: Model,
    *,
    data: Annotated[
        Path | None,
        typer.Option(
            "--data",
            help="Held-out text; absent: what the checkpoint's recipe holds out. With --tasks: folder of the rows.",
        ),
    ] = None,
    teacher: Annotated[
        str | None, typer.Option("--teacher", help="16-bit model to compare with: folder or hub name.")
    ] = None,
    tasks: Tasks = None,
    limit: Limit = None,
    output: TaskOutput = None,
    cache: TaskCache = None,
    no_cache: Annotated[bool, typer.Option("--no-cache", help="Keep no answers of --tasks on the disk.")] = False,
    overrides: HeldOutOverrides = None,
) -> None:
    """Measure a model: on held-out data by loss, bits per byte and KL to its teacher, or on tasks by right answers."""
    if tasks:
        if overrides:
            raise DataError("--set changes held-out data; --tasks takes none of it")
        from edgerazor.cli.tasks import default_cache, run_tasks

        kept = None if no_cache else cache or default_cache()
        run_tasks(model, tasks, data=data, teacher=teacher, limit=limit, output=output, cache=kept)
        return
    if limit is not None or output is not None or cache is not None or no_cache:
        raise DataError("--limit, --output, --cache and --no-cache belong to --tasks, which is missing")
    from edgerazor.cli.tables import print_figures
    from edgerazor.core.discovery import load_plugins
    from edgerazor.evaluate.checkpoints import evaluate_checkpoint
    from edgerazor.evaluate.exported import evaluate_exported
    from edgerazor.evaluate.held_out import evaluation_settings
    from edgerazor.inference.open_runtime import is_exported

    registry = load_plugins()
    section, evaluation = evaluation_settings(model, data, overrides or [], registry=registry)
    measure = evaluate_exported if is_exported(model, registry) else evaluate_checkpoint
    result = measure(model, registry=registry, data=section, teacher=teacher, evaluation=evaluation)
    print_figures(result.to_dict())
    for note in result.notes:
        typer.echo(f"note: {note}", err=True)
