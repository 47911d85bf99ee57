"""Commands about recipes: write one, check it, see what it does to a model, list what it may name."""

import json
from pathlib import Path
from typing import Annotated

import typer

from edgerazor.cli.application import Overrides, RecipePath
from edgerazor.errors import EdgeRazorError


def init(
    path: Annotated[Path, typer.Argument(help="Where to write it.")] = Path("recipe.yaml"),
    model: Annotated[str | None, typer.Option("--model", help="Folder or hub name of the 16-bit model.")] = None,
    preset: Annotated[
        str | None,
        typer.Option(
            "--preset",
            help="edgerazor-1.88-bit, 1.88-bit, 4-bit, ...",
            show_default="edgerazor-1.88-bit; of image classifiers 1.88-bit",
        ),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite a file that is there.")] = False,
) -> None:
    """Write a commented recipe to start from."""
    from edgerazor.recipes.starter import MODEL, write_starter

    write_starter(path, model=model or MODEL, preset=preset, force=force)
    missing = "data" if model else "model and data"
    typer.echo(f"wrote {path}; set {missing}, then: edgerazor check {path}")


def check(recipe: RecipePath, overrides: Overrides = None) -> None:
    """Check a recipe, its data files and, if the model is on this machine, every shape."""
    from edgerazor.cli.tables import summary
    from edgerazor.core.discovery import load_plugins
    from edgerazor.recipes.check import check_recipe

    result = check_recipe(recipe, registry=load_plugins(), overrides=overrides or [])
    typer.echo(f"{recipe}: ok")
    for line in summary(result.plan) if result.plan else []:
        typer.echo(f"  {line}")
    for note in result.notes:
        typer.echo(f"  note: {note}")


def plan(
    recipe: RecipePath,
    overrides: Overrides = None,
    every: Annotated[bool, typer.Option("--all", help="One row per module instead of one per kind of layer.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Every module and the totals as JSON.")] = False,
) -> None:
    """Show what a recipe does to each module of its model: rule, quantizer, bits and bytes. No weight is loaded."""
    from edgerazor.cli.tables import console, plan_as_dict, plan_table, summary
    from edgerazor.core.discovery import load_plugins
    from edgerazor.models.fetch import fetch_config
    from edgerazor.schemas.recipe import load_recipe

    registry = load_plugins()
    fetch_config(recipe, registry=registry, overrides=overrides or [])
    loaded = load_recipe(recipe, registry=registry, overrides=overrides or [])
    from edgerazor.models.load import plan_recipe

    planned = plan_recipe(loaded, registry=registry)
    if as_json:
        typer.echo(json.dumps(plan_as_dict(planned), indent=2))
        return
    console().print(plan_table(planned, every=every))
    for line in [*summary(planned), *(f"note: {note}" for note in planned.notes)]:
        typer.echo(line)


def plugins() -> None:
    """List the plugins that are installed, what they add, and why one is unusable."""
    from edgerazor.cli.tables import console, plugin_table
    from edgerazor.core.discovery import load_plugins

    registry = load_plugins()
    console().print(plugin_table(registry.plugins))


def schema(
    output: Annotated[Path | None, typer.Option("--output", help="File to write; absent: the terminal.")] = None,
) -> None:
    """Print the JSON Schema of recipes, plugins included, for completion and checks in an editor."""
    from edgerazor.core.atomic import write_text
    from edgerazor.core.discovery import load_plugins
    from edgerazor.recipes.json_schema import recipe_json_schema

    text = json.dumps(recipe_json_schema(load_plugins()), indent=2)
    if output is None:
        typer.echo(text)
        return
    try:
        write_text(output, text + "\n")
    except OSError as error:
        raise EdgeRazorError(f"{output}: cannot be written: {error.strerror}") from error
    typer.echo(f"wrote {output}")
