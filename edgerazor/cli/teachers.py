"""Commands that run the teacher alone: cache-teacher."""

from pathlib import Path
from typing import Annotated

import typer

from edgerazor.cli.application import Overrides, RecipePath


def cache_teacher(
    recipe: RecipePath,
    output: Annotated[Path, typer.Option("--output", help="Folder of the cache.", show_default=False)],
    top_k: Annotated[int, typer.Option("--top-k", min=1, help="Tokens kept per position.")] = 64,
    batch_size: Annotated[int, typer.Option("--batch-size", min=1, help="Rows per pass of the teacher.")] = 8,
    overrides: Overrides = None,
) -> None:
    """Run the teacher over the training data once, so that training needs no teacher in memory.

    Called again after an interruption it goes on where it stopped.
    """
    from edgerazor.cli.tables import human_bytes
    from edgerazor.core.discovery import load_plugins
    from edgerazor.models.fetch import fetch_config
    from edgerazor.schemas.recipe import load_recipe

    registry = load_plugins()
    fetch_config(recipe, registry=registry, overrides=overrides or [])
    loaded = load_recipe(recipe, registry=registry, overrides=overrides or [])
    from edgerazor.distill.teacher_cache import cache_teacher as run

    cached = run(loaded, registry=registry, output=output, top_k=top_k, batch_size=batch_size)
    typer.echo(
        f"wrote {output}: {cached.rows} rows, {cached.positions} positions, {human_bytes(cached.bytes)}; "
        f"train with --set distillation.teacher_cache={output}"
    )
