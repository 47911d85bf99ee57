"""`serve`: models behind the interface that clients of OpenAI's use."""

from typing import Annotated

import typer

from edgerazor.errors import PluginError, install_hint

Models = Annotated[
    list[str],
    typer.Argument(
        metavar="[NAME=]MODEL...",
        help="Packed checkpoint, exported model or 16-bit folder; several are served by name.",
        show_default=False,
    ),
]
Key = Annotated[
    str | None,
    typer.Option("--api-key", envvar="EDGERAZOR_API_KEY", help="Key that clients have to send.", show_default=False),
]
Origins = Annotated[
    list[str] | None,
    typer.Option("--cors", metavar="ORIGIN", help="Pages of other hosts that may call; repeatable."),
]
Limit = Annotated[int | None, typer.Option("--max-prompt-tokens", min=1, help="Absent: the context of the model.")]


def serve(
    models: Models,
    *,
    host: Annotated[str, typer.Option("--host", help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="0: a free one.")] = 8000,
    api_key: Key = None,
    cors: Origins = None,
    queue: Annotated[int, typer.Option("--queue", min=0, help="Requests of a model that may wait.")] = 32,
    max_prompt_tokens: Limit = None,
    max_new_tokens: Annotated[int, typer.Option("--max-new-tokens", min=1, help="Of one answer.")] = 4096,
    max_body: Annotated[float, typer.Option("--max-body", min=0.001, help="MiB of one request.")] = 4.0,
    grace: Annotated[float, typer.Option("--grace", min=0, help="Seconds for answers when told to end.")] = 10.0,
) -> None:
    """Serve models over HTTP, as clients of OpenAI's interface expect it, until Ctrl-C."""
    try:
        from edgerazor.serve.server import serve as run
    except ModuleNotFoundError as error:
        if error.name not in ("starlette", "uvicorn"):
            raise
        raise PluginError(f"{error.name} is not installed: {install_hint('serve')}") from error
    from edgerazor.cli.tables import human_bytes
    from edgerazor.core.discovery import load_plugins
    from edgerazor.inference.named_paths import named_paths
    from edgerazor.serve.models import loaded_models
    from edgerazor.serve.settings import ServeSettings

    doors = {"host": host, "port": port, "api_key": api_key or None, "origins": tuple(cors or ())}
    limits = {"max_prompt_tokens": max_prompt_tokens, "max_new_tokens": max_new_tokens, "grace_seconds": grace}
    settings = ServeSettings(**doors, **limits, queue=queue, max_body_bytes=round(max_body * 2**20))  # type: ignore[arg-type]
    with loaded_models(named_paths(models), registry=load_plugins(), queue=queue) as table:
        for model in table:
            typer.echo(f"{model.name}: {human_bytes(model.bytes)}, {model.runtime.engine}")
        if not settings.is_local and settings.api_key is None:
            typer.echo("note: everybody who reaches this machine may use the models; --api-key sets a key", err=True)
        run(table, settings, on_ready=lambda address: typer.echo(f"playground {address}, interface {address}/v1"))
