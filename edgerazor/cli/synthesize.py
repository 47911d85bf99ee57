"""The command that lets a teacher write training data."""

import os
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgerazor.cli.self_prompted import SelfPromptedOptions
from edgerazor.errors import SynthesisError
from edgerazor.schemas.synthesis import (
    DEFAULT_MAX_NEW_TOKENS,
    DEFAULT_TEMPERATURE,
    DEFAULT_TOP_K,
    DEFAULT_TOP_P,
    SynthesisSettings,
    build_synthesis_settings,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from edgerazor.synthesize.connection import ServerAddress
    from edgerazor.synthesize.drafts import Draft, Writer
    from edgerazor.synthesize.synthesis import SynthesisResult

_BATCH_SIZE, _CONCURRENCY, _KEY_VARIABLE = 8, 8, "EDGERAZOR_API_KEY"

Sources = Annotated[
    list[str] | None,
    typer.Argument(metavar="SOURCE...", help="Files or folders of messages or text.", show_default=False),
]
Output = Annotated[Path, typer.Option(help="JSON-lines file to write or go on with.", show_default=False)]
Model = Annotated[str | None, typer.Option(help="Teacher: folder or hub name; with --server the name it serves.")]
Server = Annotated[
    str | None, typer.Option(metavar="URL", help="OpenAI-compatible server, such as http://localhost:8000/v1.")
]
SystemPrompt = Annotated[str | None, typer.Option(help="For dialogues without a system message.")]
MaxNewTokens = Annotated[int, typer.Option(min=1, help="Of one answer.")]
Temperature = Annotated[float, typer.Option(min=0, help="0: always the likeliest token.")]
TopP = Annotated[float, typer.Option(help="Draw from the likeliest tokens of this total probability.")]
TopK = Annotated[int, typer.Option(min=0, help="Draw from this many likeliest tokens; 0: from all.")]
Seed = Annotated[int, typer.Option(min=0, help="Of the sampling.")]
Limit = Annotated[int | None, typer.Option(min=1, help="Use the first N distinct dialogues.")]
Field = Annotated[str | None, typer.Option(help="Column of messages or text; absent: 'messages' or 'text'.")]
BatchSize = Annotated[int | None, typer.Option(min=1, help=f"Dialogues at a time here; absent: {_BATCH_SIZE}.")]
Concurrency = Annotated[
    int | None, typer.Option(min=1, help=f"Dialogues at a time with --server; absent: {_CONCURRENCY}.")
]
Retries = Annotated[int, typer.Option(min=0, help="Further attempts if the server fails, with growing pauses.")]
Timeout = Annotated[float, typer.Option(min=1, help="Seconds to wait for an answer of the server.")]
KeyVariable = Annotated[
    str | None, typer.Option(help=f"Environment variable that holds the API key; absent: {_KEY_VARIABLE}, if set.")
]
StandardOnly = Annotated[bool, typer.Option("--standard-only", help="Send only what OpenAI's own API knows: no top_k.")]
SkipRefused = Annotated[
    bool, typer.Option("--skip-refused", help="Leave out rows that cannot be answered; absent: stop there.")
]
SelfPrompted = Annotated[
    int | None,
    typer.Option(min=1, metavar="N", help="Without sources: the teacher writes the questions too, for N dialogues."),
]
Turns = Annotated[int | None, typer.Option(min=1, help="Self-prompted: questions of a dialogue; absent: 1.")]
Script = Annotated[str | None, typer.Option(help="Self-prompted: of the letters of every turn, such as latin.")]
Limits = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="KEY=VALUE", help="Replace a limit of self-prompting, such as max_similarity=0.8; repeatable."
    ),
]
MaxAttempts = Annotated[
    int | None, typer.Option(min=1, help="Self-prompted: dialogues to try; absent: ten for each wanted, at least 100.")
]


def synthesize(
    output: Output,
    sources: Sources = None,
    *,
    model: Model = None,
    server: Server = None,
    system_prompt: SystemPrompt = None,
    max_new_tokens: MaxNewTokens = DEFAULT_MAX_NEW_TOKENS,
    temperature: Temperature = DEFAULT_TEMPERATURE,
    top_p: TopP = DEFAULT_TOP_P,
    top_k: TopK = DEFAULT_TOP_K,
    seed: Seed = 0,
    limit: Limit = None,
    field: Field = None,
    batch_size: BatchSize = None,
    concurrency: Concurrency = None,
    retries: Retries = 8,
    timeout: Timeout = 600.0,
    api_key_variable: KeyVariable = None,
    standard_only: StandardOnly = False,
    skip_refused: SkipRefused = False,
    self_prompted: SelfPrompted = None,
    turns: Turns = None,
    script: Script = None,
    limits: Limits = None,
    max_attempts: MaxAttempts = None,
) -> None:
    """Let a teacher write the assistant's turns of dialogues anew, or all turns; started again, it goes on."""
    alone = SelfPromptedOptions(self_prompted, turns, script, limits or (), max_attempts)
    alone.check(sources, server, {"--field": field, "--limit": limit, "--skip-refused": skip_refused})
    _check_options(model, server, batch_size, concurrency, standard_only)
    address = _address(server, api_key_variable, timeout, retries)
    sampling = {"temperature": temperature, "top_p": top_p, "top_k": top_k, "seed": seed}
    settings = build_synthesis_settings(
        writer="local" if address is None else "server",
        model=_model(address, model),
        max_new_tokens=max_new_tokens,
        system_prompt=system_prompt,
        standard_only=standard_only,
        self_prompted=alone.settings(model),
        **sampling,
    )
    open_writer = partial(_open_writer, settings, address, batch_size or _BATCH_SIZE, concurrency or _CONCURRENCY)
    if self_prompted is not None:
        interrupted = alone.write(output, settings, open_writer)
    else:
        read = partial(_write, sources or [], field=field, limit=limit, skip_refused=skip_refused)
        interrupted = read(output, settings, open_writer)
    if interrupted:
        raise typer.Exit(130)


def _write(
    sources: list[str],
    output: Path,
    settings: SynthesisSettings,
    open_writer: "Callable[[], Writer]",
    *,
    field: str | None,
    limit: int | None,
    skip_refused: bool,
) -> bool:
    from edgerazor.core.discovery import load_plugins
    from edgerazor.schemas.data import Source
    from edgerazor.synthesize.synthesis import synthesize as run
    from edgerazor.synthesize.template_keys import TemplateKeys

    read = [Source(path=path, field=field) for path in sources]
    known = TemplateKeys(settings.model, load_plugins) if settings.writer == "local" else ()
    result = run(read, output, settings, open_writer=open_writer, limit=limit, skip_refused=skip_refused, known=known)
    _print(result, output)
    return result.interrupted


def _address(server: str | None, key_variable: str | None, timeout: float, retries: int) -> "ServerAddress | None":
    if server is None:
        return None
    from edgerazor.synthesize.connection import ServerAddress

    return ServerAddress(server, _api_key(key_variable), timeout, retries, _notify)


def _model(address: "ServerAddress | None", model: str | None) -> str | None:
    if address is None:
        return model
    from edgerazor.synthesize.server import find_model

    return find_model(address, model)


def _open_writer(
    settings: SynthesisSettings,
    address: "ServerAddress | None",
    batch_size: int,
    concurrency: int,
    check: "Callable[[Draft], None] | None" = None,
) -> "Writer":
    """What writes the answers: a model that is loaded here, or a client of a server, which needs no code for models."""
    if address is None:
        from edgerazor.core.discovery import load_plugins
        from edgerazor.synthesize.local import load_local_writer

        return load_local_writer(settings, registry=load_plugins(), batch_size=batch_size, check=check)
    from edgerazor.synthesize.server import ServerWriter

    return ServerWriter(address, settings, concurrency=concurrency)


def _check_options(
    model: str | None, server: str | None, batch_size: int | None, concurrency: int | None, standard_only: bool
) -> None:
    """Raise SynthesisError for options that would have no effect."""
    if server is None and model is None:
        raise SynthesisError("who is the teacher? --model FOLDER for a model on this machine, or --server URL")
    if server is None and (concurrency is not None or standard_only):
        raise SynthesisError("--concurrency and --standard-only are for --server; without it there is --batch-size")
    if server is not None and batch_size is not None:
        raise SynthesisError("--batch-size is for a model on this machine; with --server there is --concurrency")


def _api_key(variable: str | None) -> str | None:
    key = os.environ.get(variable or _KEY_VARIABLE)
    if variable is not None and not key:
        raise SynthesisError(f"--api-key-variable: the environment has no variable {variable}, or it is empty")
    return key or None


def _notify(line: str) -> None:
    typer.echo(line, err=True)


def _print(result: "SynthesisResult", out: Path) -> None:
    for said in result.refused.shown:
        _notify(f"left out: {said}")
    if result.refused.count > len(result.refused.shown):
        _notify(f"left out: {result.refused.count} rows in all")
    there = result.written + result.present
    if result.interrupted:
        _notify(f"stopped; {out} holds {there} of {result.prompts} dialogues. The same command goes on from there.")
        return
    typer.echo(
        f"wrote {result.written} dialogues to {out} in {result.seconds:.0f} s; it holds {there} of {result.prompts}"
    )
    notes = (
        (result.present, "were written before"),
        (result.duplicates, "rows repeat an earlier prompt and were left out"),
        (result.cut, "answers were cut at the limit of new tokens; their finish_reasons say 'length'"),
        (result.empty, "answers are empty"),
    )
    for count, what in notes:
        if count:
            typer.echo(f"  {count} {what}")
