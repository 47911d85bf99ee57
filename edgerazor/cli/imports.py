"""The command that reads what other programs quantized."""

from pathlib import Path
from typing import Annotated

import typer

from edgerazor.cli.application import Overrides


def import_checkpoint(
    folder: Annotated[
        Path,
        typer.Argument(
            metavar="FOLDER",
            help="compressed-tensors pack-quantized, GPTQ, or 16-bit weights on a grid.",
            show_default=False,
        ),
    ],
    output: Annotated[Path, typer.Option("--output", help="Folder of the packed checkpoint.", show_default=False)],
    unquantized: Annotated[
        list[str] | None,
        typer.Option("--unquantized", metavar="GLOB", help="Modules of a 16-bit folder that stay 16 bit; repeatable."),
    ] = None,
    overrides: Overrides = None,
) -> None:
    """Turn a folder that another program quantized into a packed checkpoint, to the bit, or say what is in the way."""
    from edgerazor.cli.tables import human_bytes
    from edgerazor.core.discovery import load_plugins
    from edgerazor.importers import import_folder

    imported = import_folder(
        folder, registry=load_plugins(), output=output, unquantized=unquantized or (), overrides=overrides or ()
    )
    size = human_bytes(sum(imported.files.values()))
    typer.echo(f"wrote {output}: {size}, {imported.effective_bits:.3f} bits per quantized weight with scales")
    for note in imported.notes:
        typer.echo(f"  note: {note}")
