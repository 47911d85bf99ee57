"""The typer application, how its errors look, and the options that several commands share."""

from pathlib import Path
from typing import Annotated, Any

import typer
from safetensors import SafetensorError
from typer.core import TyperCommand, TyperGroup

from edgerazor.core.ranks import launched
from edgerazor.errors import EdgeRazorError
from edgerazor.version import __version__


class Group(TyperGroup):
    """Runs a command and turns what went wrong into one message on stderr and an exit code."""

    def invoke(self, ctx: Any) -> Any:
        """Exit 2 for bad input, 130 for an interrupt; `--debug` lets the traceback through."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            raise typer.Exit(130) from None
        except BrokenPipeError:
            # Whoever reads the output has seen enough; click ends quietly.
            raise
        except (EdgeRazorError, OSError, SafetensorError) as error:
            if ctx.params.get("debug"):
                raise
            typer.secho(_message(error), fg=typer.colors.RED, err=True)
            raise typer.Exit(2) from error


class RenamedOutput(TyperCommand):
    """A command whose `--output` was spelt `--out` in version 0.1; the old spelling still works and is pointed out."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Read `--out` as `--output`, and say so on stderr."""
        new = [f"--output{arg[5:]}" if arg == "--out" or arg.startswith("--out=") else arg for arg in args]
        if new != args:
            typer.echo("note: --out is now --output; this version still takes both", err=True)
        return super().parse_args(ctx, new)


class ExportCommand(RenamedOutput):
    """`export`, whose `--to` may stand without a name, to ask for the names."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Leave out a `--to` that nothing follows."""
        following = [*args[1:], "-"]
        kept = [arg for arg, after in zip(args, following, strict=True) if arg != "--to" or not after.startswith("-")]
        return super().parse_args(ctx, kept)


def _message(error: Exception) -> str:
    """What an error says, and which of several processes says it."""
    rank, processes = launched()
    return _text(error) if processes == 1 else f"rank {rank}: {_text(error)}"


def _text(error: Exception) -> str:
    """An OSError of a disk that fills up has no file to name, one of opening has."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename is not None else error.strerror
    return str(error) or type(error).__name__


app = typer.Typer(
    cls=Group,
    help="Turn a 16-bit language model into a 1.58- to 4-bit one by quantization-aware distillation.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)


def _print_version(value: bool) -> None:
    if value:
        typer.echo(f"edgerazor {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    pass


RecipePath = Annotated[Path, typer.Argument(help="Recipe in YAML or JSON.", show_default=False)]
Overrides = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY.PATH=VALUE",
        help="Replace one value of the recipe, such as training.max_steps=100; repeatable.",
        show_default=False,
    ),
]
