"""Commands that load weights: quickstart, pack, train, generate, export, verify."""

import shlex
from pathlib import Path
from typing import Annotated, Any

import typer

from edgerazor.cli.application import Overrides, RecipePath
from edgerazor.cli.process import ask_for_huge_pages, keep_large_blocks, show_one_gpu
from edgerazor.core.ranks import launched
from edgerazor.errors import ExportError

Folder = Annotated[Path, typer.Argument(help="Folder of a packed checkpoint.", show_default=False)]
Model = Annotated[
    Path, typer.Argument(metavar="MODEL", help="Packed checkpoint, or an exported model.", show_default=False)
]


def quickstart(
    output: Annotated[Path, typer.Option("--output", help="Folder of the run.")] = Path("quickstart"),
    budget: Annotated[
        float | None, typer.Option("--budget", help="Seconds for everything; absent: about five minutes.")
    ] = None,
    smoke: Annotated[bool, typer.Option("--smoke", help="A few steps only, to see that everything works.")] = False,
    data: Annotated[Path | None, typer.Option("--data", help="Text of your own to train on.")] = None,
    train_teacher: Annotated[
        float | None, typer.Option("--train-teacher", help="Train a teacher for this many seconds first.")
    ] = None,
    seed: Annotated[int, typer.Option("--seed", help="Seed of the run.")] = 0,
) -> None:
    """Quantize a small model on this machine, from teacher to packed checkpoint, and show what was gained."""
    ask_for_huge_pages()
    show_one_gpu()
    from edgerazor.core.discovery import load_plugins
    from edgerazor.models.load import pick_device
    from edgerazor.quickstart.runner import run_quickstart

    if pick_device().type == "cpu":
        keep_large_blocks()
    options: dict[str, Any] = {} if budget is None else {"budget": budget}
    run_quickstart(
        output, registry=load_plugins(), **options, smoke=smoke, data=data, train_teacher=train_teacher, seed=seed
    )


def pack(
    source: Annotated[str, typer.Argument(metavar="MODEL_OR_RUN", help="16-bit model, or the folder of a run.")],
    *,
    output: Annotated[Path, typer.Option("--output", help="Folder of the packed checkpoint.", show_default=False)],
    preset: Annotated[str | None, typer.Option("--preset", help="4-bit, 1.88-bit, edgerazor-1.88-bit, ...")] = None,
    recipe: Annotated[Path | None, typer.Option("--recipe", help="Take the quantization section from here.")] = None,
    calibrate: Annotated[
        Path | None, typer.Option("--calibrate", help="Texts, or pictures, to round on (GPTQ), closer to the model.")
    ] = None,
    samples: Annotated[
        int, typer.Option("--samples", help="Pictures of --calibrate, or rows, 512 tokens each at most.", min=1)
    ] = 128,
    overrides: Overrides = None,
) -> None:
    """Quantize a model once, without training, or a run as it stands, and write the packed checkpoint."""
    from edgerazor.checkpoint.pack_source import pack_source
    from edgerazor.cli.tables import human_bytes
    from edgerazor.core.discovery import load_plugins

    registry = load_plugins()
    by: dict[str, Any] = {"preset": preset, "recipe": recipe, "overrides": overrides or []}
    if calibrate is None:
        packed = pack_source(source, registry=registry, output=output, **by)
    else:
        from edgerazor.calibrate import calibrate_source
        from edgerazor.cli.exports import show_stages

        with show_stages() as progress:
            packed = calibrate_source(
                source, calibrate, registry=registry, output=output, samples=samples, progress=progress, **by
            )
    size = human_bytes(sum(packed.files.values()))
    typer.echo(f"wrote {output}: {size}, {packed.effective_bits:.3f} bits per quantized weight with scales")
    for note in packed.notes:
        typer.echo(f"  note: {note}")


def train(
    recipe: RecipePath,
    output: Annotated[Path, typer.Option("--output", help="Folder of the run.", show_default=False)],
    resume: Annotated[bool, typer.Option("--resume", help="Go on where the run in --output stopped.")] = False,
    overrides: Overrides = None,
) -> None:
    """Train a low-bit student by distillation, then pack, verify and export it."""
    ask_for_huge_pages()
    from edgerazor.core.discovery import load_plugins
    from edgerazor.models.fetch import fetch_config
    from edgerazor.schemas.recipe import load_recipe

    registry = load_plugins()
    fetch_config(recipe, registry=registry, overrides=overrides or [])
    loaded = load_recipe(recipe, registry=registry, overrides=overrides or [])
    from rich.console import Console

    from edgerazor.cli.exports import print_export, show_stages
    from edgerazor.cli.tables import print_figures
    from edgerazor.models.load import pick_device
    from edgerazor.training import train as run

    if pick_device(use_cpu=loaded.training.use_cpu).type == "cpu":
        keep_large_blocks()
    with show_stages() as progress:
        result = run(loaded, registry=registry, output=output, resume=resume, export_progress=progress)
    for exported in result.exports:
        print_export(exported, Console(stderr=True))
    if launched()[0] != 0:
        # The first of several processes says for all what came of the run.
        raise typer.Exit(130 if result.interrupted else 0)
    if result.interrupted:
        changes = [part for override in overrides or [] for part in ("--set", override)]
        command = ["edgerazor", "train", str(recipe), "--output", str(output), *changes, "--resume"]
        typer.echo(f"stopped at step {result.steps}; it is saved. To go on:", err=True)
        typer.echo(shlex.join(command), err=True)
        raise typer.Exit(130)
    typer.echo(f"trained {result.steps} steps in {result.seconds:.0f} s: {result.checkpoint}")
    print_figures(result.evaluation)


def generate(
    model: Model,
    prompt: Annotated[str, typer.Option("--prompt", help="What the model goes on from.", show_default=False)],
    max_new_tokens: Annotated[int, typer.Option("--max-new-tokens", min=1, help="At most this many tokens.")] = 128,
    temperature: Annotated[float, typer.Option("--temperature", min=0, help="0: always the likeliest token.")] = 0.0,
    seed: Annotated[int, typer.Option("--seed", help="Seed of the sampling.")] = 0,
    chat: Annotated[
        bool | None,
        typer.Option(
            "--chat/--no-chat", help="Prompt as a message, or as it is; absent: a message if the model chats."
        ),
    ] = None,
) -> None:
    """Let a packed checkpoint write, or an exported model in the engine it was exported for; text streams."""
    from edgerazor.inference.generate import GenerationSettings
    from edgerazor.inference.generate import generate as run

    def show(text: str) -> None:
        typer.echo(text, nl=False)

    run(model, prompt, GenerationSettings(max_new_tokens, temperature, seed, chat), on_text=show)
    typer.echo()


def export(
    checkpoint: Folder,
    to: Annotated[
        str | None, typer.Option("--to", metavar="EXPORTER", help="Such as gguf; without a name: which suits what.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", help="File or folder to write.", show_default=False)
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="PARAMETER=VALUE",
            help="A parameter of the exporter, such as profile=size; repeatable.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Write a packed checkpoint in another format, codes and scales unchanged, and read it back to prove it."""
    from rich.console import Console

    from edgerazor.cli.exports import print_export, show_stages
    from edgerazor.core.discovery import load_plugins
    from edgerazor.export.export import export_to, list_exporters

    registry = load_plugins()
    if to is None:
        raise ExportError(f"--to needs the name of an exporter:\n{list_exporters(registry)}")
    if output is None:
        raise ExportError(f"--output is missing: where {to} shall write to")
    with show_stages() as progress:
        result = export_to(checkpoint, to, output, settings or [], registry=registry, progress=progress)
    print_export(result, Console())


def verify(
    folder: Annotated[
        Path,
        typer.Argument(
            metavar="CHECKPOINT_OR_FILE",
            help="Packed checkpoint; with --against, an exported file.",
            show_default=False,
        ),
    ],
    logits: Annotated[bool, typer.Option("--logits", help="Also compare the logits of both ways to load it.")] = False,
    against: Annotated[
        Path | None,
        typer.Option("--against", metavar="CHECKPOINT", help="Compare an exported file with the checkpoint it is of."),
    ] = None,
) -> None:
    """Check that a packed checkpoint is whole: files, shapes, codes, scales, digest; or compare an export with it."""
    from edgerazor.checkpoint import verify_checkpoint
    from edgerazor.cli.tables import human_bytes
    from edgerazor.core.discovery import load_plugins
    from edgerazor.inference.open_runtime import exporter_of, is_exported

    if against is not None:
        _verify_export(folder, against)
        return
    registry = load_plugins()
    if is_exported(folder, registry):
        raise ExportError(
            f"{folder}: is a model exported by '{exporter_of(folder, registry)}'; say which checkpoint it was exported "
            "from: --against CHECKPOINT"
        )
    if folder.is_file():
        raise ExportError(f"{folder}: is a file; expected the folder of a packed checkpoint, or an exported model")
    result = verify_checkpoint(folder, logits=logits, registry=registry)
    if not result.ok:
        for line in result.faults:
            typer.secho(line, fg=typer.colors.RED, err=True)
        raise typer.Exit(2)
    size = f"{human_bytes(result.bytes)}, {result.bits_per_weight:.3f} bits per quantized weight"
    typer.echo(f"{folder}: ok, {result.tensors} tensors, {size}")


def _verify_export(path: Path, checkpoint: Path) -> None:
    from edgerazor.cli.exports import show_stages
    from edgerazor.core.discovery import load_plugins
    from edgerazor.export.export import verify_export

    with show_stages() as progress:
        result = verify_export(path, checkpoint, registry=load_plugins(), progress=progress)
    if result.different:
        for name in result.different:
            typer.secho(f"{path}: {name}: differs from {checkpoint}", fg=typer.colors.RED, err=True)
        raise typer.Exit(2)
    ran = f", and {result.engine} runs it" if result.engine else ""
    typer.echo(f"{path}: ok, {result.tensors} tensors equal {checkpoint}{ran}")
    if result.why_not_run:
        typer.echo(f"note: {result.why_not_run}")
