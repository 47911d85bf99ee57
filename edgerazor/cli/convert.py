"""The command that turns configurations of the original release into recipes."""

from pathlib import Path
from typing import Annotated

import typer

from edgerazor.errors import RecipeError


def convert_recipe(
    old: Annotated[
        Path, typer.Argument(metavar="OLD", help="Configuration of EdgeRazor 1.3.5, YAML or JSON.", show_default=False)
    ],
    output: Annotated[
        Path | None, typer.Option("--output", help="Where to write the recipe; absent: the terminal.")
    ] = None,
    model: Annotated[
        str | None, typer.Option("--model", help="Folder or hub name of the 16-bit model, which OLD does not hold.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite a file that is there.")] = False,
) -> None:
    """Turn a configuration of the original EdgeRazor release into a recipe, or say what has no counterpart."""
    from edgerazor.convert import convert_file
    from edgerazor.core.atomic import write_text
    from edgerazor.core.discovery import load_plugins

    if output is not None and output.exists() and not force:
        raise RecipeError(f"{output}: is there already; choose another name, or --force to overwrite it")
    converted = convert_file(old, registry=load_plugins(), model=model)
    if output is None:
        typer.echo(converted.to_yaml(), nl=False)
    else:
        write_text(output, converted.to_yaml())
        typer.echo(f"wrote {output}")
    for note in converted.notes:
        typer.echo(f"  note: {note}", err=output is None)
