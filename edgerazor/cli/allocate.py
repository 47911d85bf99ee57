"""`edgerazor allocate`: which matrix gets how many bits."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgerazor.cli.application import Overrides, RecipePath
from edgerazor.core.claims import claimed
from edgerazor.errors import RecipeError

if TYPE_CHECKING:
    from edgerazor.allocate import AllocationResult, AllocationSettings
    from edgerazor.allocate.allocation import Assignment


def allocate(
    recipe: RecipePath,
    *,
    target_bits: Annotated[
        float,
        typer.Option("--target-bits", help="Nominal bits per weight of the decoder's matrices.", show_default=False),
    ],
    output: Annotated[Path, typer.Option("--output", help="Recipe to write.")] = Path("allocated.yaml"),
    batches: Annotated[int, typer.Option("--batches", min=1, help="Calibration batches of the training data.")] = 16,
    candidates: Annotated[
        list[str] | None,
        typer.Option(
            "--candidate",
            metavar="QUANTIZER",
            help="ternary, int4, 1/8 (int rows among ternary ones) or {name: ...}; repeatable. "
            "Absent: ternary, 1/16, 1/8, 1/4, 1/2, int4.",
            show_default=False,
        ),
    ] = None,
    rows: Annotated[
        bool, typer.Option("--rows", help="Choose single rows by sensitivity; the recipe then lists them.")
    ] = False,
    free: Annotated[bool, typer.Option("--free", help="Let q, k, v of a layer differ, and gate and up.")] = False,
    measure: Annotated[
        bool, typer.Option("--measure/--no-measure", help="Round and measure on held-out data, without training.")
    ] = True,
    seed: Annotated[int, typer.Option("--seed", help="Seed of the sensitivities.")] = 0,
    overrides: Overrides = None,
) -> None:
    """Choose each matrix's width by its sensitivity on data, under a size target; write an explicit recipe."""
    from edgerazor.core.discovery import load_plugins
    from edgerazor.models.fetch import fetch_config
    from edgerazor.schemas.recipe import load_recipe

    registry = load_plugins()
    fetch_config(recipe, registry=registry, overrides=overrides or [])
    loaded = load_recipe(recipe, registry=registry, overrides=overrides or [])
    _check_options(output, rows=rows, candidates=candidates)
    from edgerazor.allocate import AllocationSettings
    from edgerazor.allocate import allocate as run
    from edgerazor.allocate.write_recipe import write_allocated_recipe
    from edgerazor.schemas.allocation import DEFAULT_CANDIDATES

    among = tuple(candidates or DEFAULT_CANDIDATES)
    settings = AllocationSettings(target_bits, batches, among, free, rows, measure, seed)
    with claimed(output):
        result = run(loaded, settings, registry=registry)
        _show(result)
        write_allocated_recipe(result.recipe, output, comment=_comment(result, recipe, settings), registry=registry)
    typer.echo(f"wrote {output}; next: edgerazor train {output} --output RUN")


def _check_options(output: Path, *, rows: bool, candidates: list[str] | None) -> None:
    if rows and candidates:
        raise RecipeError("--rows chooses among ternary and int rows by itself; leave --candidate out")
    if not output.parent.is_dir():
        raise RecipeError(f"{output}: cannot be written: there is no folder {output.parent}")


def _comment(result: "AllocationResult", recipe: Path, settings: "AllocationSettings") -> list[str]:
    """First lines of the written recipe: the command that made it, and what it promises."""
    options = "".join([" --rows"] * settings.rows + [" --free"] * settings.free)
    return [
        f"Written by edgerazor allocate {recipe} --target-bits {settings.target_bits:g}{options}.",
        f"Decoder: {result.allocated.bits:.4f} nominal bits per weight; predicted KL {result.allocated.predicted:.4f}, "
        f"{result.uniform_label} everywhere {result.uniform.predicted:.4f}.",
    ]


def _show(result: "AllocationResult") -> None:
    from rich.table import Table

    from edgerazor.cli.tables import console

    table = Table("matrices", "quantizer", box=None, pad_edge=False)
    for heading in ("weights", "bits", "predicted KL"):
        table.add_column(heading, justify="right")
    for unit, option in result.choices:
        bits = option.cost / 100 / max(unit.weights, 1)
        table.add_row(unit.name, option.label, f"{unit.weights:,}", f"{bits:.3f}", f"{option.loss:.5f}")
    console().print(table)
    comparison = Table("", box=None, pad_edge=False)
    for heading in ("bits", "bytes", "predicted KL", "measured KL", "measured loss"):
        comparison.add_column(heading, justify="right")
    for name, assignment in (("allocated", result.allocated), (f"{result.uniform_label} everywhere", result.uniform)):
        figures = (f"{assignment.bits:.4f}", f"{assignment.bytes:,}", f"{assignment.predicted:.4f}")
        comparison.add_row(name, *figures, *_measured(assignment))
    console().print(comparison)
    typer.echo(f"sensitivities from {result.tokens:,} predicted tokens; measured figures are of rounding, untrained")
    for note in result.notes:
        typer.echo(f"note: {note}")


def _measured(assignment: "Assignment") -> tuple[str, str]:
    figures = assignment.measured
    if figures is None or figures.kl_teacher is None:
        return "-", "-"
    return f"{figures.kl_teacher:.4f}", f"{figures.loss:.4f}"
