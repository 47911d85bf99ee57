"""The `edgerazor` command. torch and transformers are imported inside the commands, so that help answers at once."""

import sys
from collections.abc import Callable

from edgerazor.cli import allocate, convert, evaluation, imports, recipes, report, runs, serve, synthesize, teachers
from edgerazor.cli.application import ExportCommand, RenamedOutput, app
from edgerazor.cli.process import hide_progress_bars

__all__ = ["app", "main"]

_COMMANDS: tuple[Callable[..., None], ...] = (
    runs.quickstart,
    recipes.init,
    recipes.check,
    recipes.plan,
    allocate.allocate,
    synthesize.synthesize,
    runs.pack,
    imports.import_checkpoint,
    teachers.cache_teacher,
    runs.train,
    evaluation.evaluate,
    evaluation.eval_data,
    report.report,
    runs.generate,
    serve.serve,
    runs.export,
    runs.verify,
    recipes.plugins,
    recipes.schema,
    convert.convert_recipe,
)
_READ_OTHERWISE = {
    **dict.fromkeys((runs.pack, recipes.schema, synthesize.synthesize), RenamedOutput),
    runs.export: ExportCommand,
}
_NAMES = {imports.import_checkpoint: "import"}  # a word of the language
for _command in _COMMANDS:
    app.command(_NAMES.get(_command), cls=_READ_OTHERWISE.get(_command))(_command)


def main(arguments: list[str] | None = None) -> None:
    """Entry point; exits 0, 2 if the input was at fault, 130 if interrupted."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    if "--debug" in arguments[1:]:
        # A person adds it at the end of the line that just failed.
        arguments.remove("--debug")
        arguments.insert(0, "--debug")
    hide_progress_bars()
    app(arguments, prog_name="edgerazor")
