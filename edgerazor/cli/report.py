"""`report`: runs side by side in one HTML file."""

from pathlib import Path
from typing import Annotated

import typer

from edgerazor.errors import EdgeRazorError, OutputError

Runs = Annotated[
    list[str],
    typer.Argument(
        metavar="[NAME=]RUN...",
        help="Folder of a run, packed checkpoint, exported model or 16-bit folder.",
        show_default=False,
    ),
]
Results = Annotated[
    list[str] | None,
    typer.Option(
        "--tasks",
        metavar="[NAME=]FILE",
        help="JSON of `evaluate --tasks --output`; repeatable. Absent: what lies in a run's folder.",
    ),
]
Prompts = Annotated[list[str] | None, typer.Option("--prompt", help="A question for every model; repeatable.")]
PromptFile = Annotated[
    Path | None,
    typer.Option("--prompts", help="File of questions, one a line, or JSON lines with `prompt`.", show_default=False),
]


def report(
    runs: Runs,
    *,
    output: Annotated[Path, typer.Option("--output", help="HTML file.")] = Path("report.html"),
    tasks: Results = None,
    prompt: Prompts = None,
    prompts: PromptFile = None,
    answers: Annotated[bool, typer.Option("--answers/--no-answers", help="Whether the models answer.")] = True,
    max_new_tokens: Annotated[int, typer.Option("--max-new-tokens", min=1, help="Of one answer.")] = 128,
    title: Annotated[str, typer.Option("--title", help="Of the page.")] = "Runs side by side",
) -> None:
    """Put runs side by side in one HTML file: curves, layers, bits, sizes, tasks, answers to the same questions."""
    from edgerazor.core.atomic import file_above, write_text
    from edgerazor.core.discovery import load_plugins
    from edgerazor.inference.named_paths import named_paths
    from edgerazor.report.answers import QUESTIONS, Answers, ask, read_questions
    from edgerazor.report.extra import check_report_extra
    from edgerazor.report.records import read_run
    from edgerazor.report.runs import runs_report
    from edgerazor.report.tasks import task_table

    check_report_extra()
    if not answers and (prompt or prompts):
        raise EdgeRazorError("--no-answers asks nothing; leave it out, or --prompt and --prompts")
    if output.is_dir() or (above := file_above(output)) is not None:
        place = output if output.is_dir() else above
        raise OutputError(
            f"{place}: is a {'folder' if output.is_dir() else 'file'}; expected the name of a file such as report.html"
        )
    asked = [*(prompt or ()), *(read_questions(prompts) if prompts else ())] or list(QUESTIONS)
    registry = load_plugins()
    records = [read_run(name, path, registry) for name, path in named_paths(runs).items()]
    table = task_table(records, tasks or [])
    found = Answers()
    if answers:
        models = {record.name: record.model for record in records if record.model is not None}
        found = ask(
            models, asked, registry=registry, max_new_tokens=max_new_tokens, say=lambda text: typer.echo(text, err=True)
        )
    text = runs_report(records, table, found, title=title)
    output.parent.mkdir(parents=True, exist_ok=True)
    write_text(output, text)
    typer.echo(f"wrote {output}")
