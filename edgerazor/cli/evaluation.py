"""`evaluate`: figures on held-out data, or right answers to tasks; `eval-data`: rows of tasks."""

from pathlib import Path
from typing import Annotated, Any

import typer

from edgerazor.cli.runs import Model
from edgerazor.core.contracts.videos import FRAMES, MAX_PIXELS
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
Data = Annotated[
    Path | None,
    typer.Option(
        "--data",
        help="Held-out text or pictures; absent: what the checkpoint's recipe holds out. With --tasks: folder of rows.",
    ),
]
Teacher = Annotated[
    str | None, typer.Option("--teacher", help="16-bit model to compare with: folder or hub name.", show_default=False)
]
NoCache = Annotated[bool, typer.Option("--no-cache", help="Keep no answers of --tasks on the disk.")]
FewShot = Annotated[
    int | None,
    typer.Option("--num-fewshot", min=0, help="Examples before each question; absent: as lm-evaluation-harness."),
]
Template = Annotated[
    bool | None,
    typer.Option(
        "--apply-chat-template/--no-chat-template",
        help="Ask through the model's chat template; absent: only humaneval_instruct and ifeval of a published group.",
        show_default=False,
    ),
]
Multiturn = Annotated[
    bool, typer.Option("--fewshot-as-multiturn", help="Examples as turns of a dialogue; needs the chat template.")
]
SystemInstruction = Annotated[
    str | None, typer.Option("--system-instruction", help="System message, or text before everything.")
]
Thinking = Annotated[
    bool | None,
    typer.Option(
        "--thinking/--no-thinking", help="What the chat template is told as enable_thinking.", show_default=False
    ),
]
RunCode = Annotated[
    bool,
    typer.Option(
        "--confirm-run-unsafe-code",
        help="Run the programs that the model writes as answers to HumanEval, with your rights on this machine.",
    ),
]
BatchSize = Annotated[
    int | None,
    typer.Option("--batch-size", min=1, help="Questions of --tasks read side by side, in Transformers and llama.cpp."),
]
Frames = Annotated[
    int | None,
    typer.Option(
        "--frames",
        min=1,
        help=f"Frames that are taken of each video, from its first to its last. [default: {FRAMES}]",
        show_default=False,
    ),
]
MaxPixels = Annotated[
    int | None,
    typer.Option(
        "--max-pixels",
        min=1,
        help=f"Frames of videos with more pixels are made smaller. [default: {MAX_PIXELS}]",
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
    shots: Annotated[
        bool, typer.Option("--shots", help="Write the examples that may stand before a question: NAME.train.jsonl.")
    ] = False,
) -> None:
    """Write the rows of a task, for `evaluate --tasks`, from a file of a public data set."""
    from edgerazor.evaluate.tasks.convert import convert_rows

    path, count = convert_rows(source, task, output, split=split, shots=shots)
    typer.echo(f"wrote {path}: {count} rows")


def evaluate(
    model: Model,
    *,
    data: Data = None,
    teacher: Teacher = None,
    tasks: Tasks = None,
    limit: Limit = None,
    output: TaskOutput = None,
    cache: TaskCache = None,
    no_cache: NoCache = False,
    num_fewshot: FewShot = None,
    apply_chat_template: Template = None,
    fewshot_as_multiturn: Multiturn = False,
    system_instruction: SystemInstruction = None,
    thinking: Thinking = None,
    confirm_run_unsafe_code: RunCode = False,
    batch_size: BatchSize = None,
    frames: Frames = None,
    max_pixels: MaxPixels = None,
    overrides: HeldOutOverrides = None,
) -> None:
    """Measure a model: on held-out data by loss, bits per byte and KL to its teacher, or on tasks by right answers."""
    prompts = {
        "num_fewshot": num_fewshot,
        "chat_template": apply_chat_template,
        "multiturn": fewshot_as_multiturn,
        "system": system_instruction,
        "thinking": thinking,
    }
    settings: dict[str, Any] = {
        "limit": limit,
        "output": output,
        "run_code": confirm_run_unsafe_code,
        "batch_size": batch_size,
    }
    shown = {"frames": frames, "max_pixels": max_pixels}
    if not tasks:
        given = (*prompts.values(), *settings.values(), *shown.values(), cache, no_cache)
        if any(value is not None and value is not False for value in given):
            raise DataError("--tasks is missing, to which all options but --data, --teacher and --set belong")
        _on_held_out(model, data, teacher, overrides or [])
        return
    if overrides:
        raise DataError("--set changes held-out data; --tasks takes none of it")
    from edgerazor.cli.tasks import default_cache, run_tasks

    settings["batch_size"] = batch_size or 1
    settings["cache"] = None if no_cache else cache or default_cache()
    run_tasks(model, tasks, data=data, teacher=teacher, prompts=prompts, shown=shown, **settings)


def _on_held_out(model: Path, data: Path | None, teacher: str | None, overrides: list[str]) -> None:
    from edgerazor.cli.tables import print_figures
    from edgerazor.core.discovery import load_plugins
    from edgerazor.evaluate.checkpoints import evaluate_checkpoint
    from edgerazor.evaluate.exported import evaluate_exported
    from edgerazor.evaluate.held_out import evaluation_settings
    from edgerazor.inference.open_runtime import is_exported

    registry = load_plugins()
    section, evaluation = evaluation_settings(model, data, overrides, registry=registry)
    measure = evaluate_exported if is_exported(model, registry) else evaluate_checkpoint
    result = measure(model, registry=registry, data=section, teacher=teacher, evaluation=evaluation)
    print_figures(result.to_dict())
    for note in result.notes:
        typer.echo(f"note: {note}", err=True)
