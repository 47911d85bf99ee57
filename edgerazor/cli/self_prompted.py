"""`synthesize --self-prompted`: its own options, and what it says."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from edgerazor.errors import SynthesisError
from edgerazor.schemas.base import nearest
from edgerazor.schemas.synthesis import SelfPrompting, SynthesisSettings

if TYPE_CHECKING:
    from edgerazor.synthesize.self_prompted import SelfPromptedResult

_NOT_LIMITS = ("model_digest", "script", "turns")


@dataclass(frozen=True)
class SelfPromptedOptions:
    """The options that have no effect without `--self-prompted`, and that one."""

    count: int | None
    turns: int | None
    script: str | None
    limits: Sequence[str]
    max_attempts: int | None

    def check(self, sources: Sequence[str] | None, server: str | None, options: dict[str, Any]) -> None:
        """Raise SynthesisError for options that do not go together; `options` are those of sources."""
        if self.count is None:
            if not sources:
                raise SynthesisError("which questions? name a source of dialogues or text, or --self-prompted N")
            if self.turns or self.script or self.limits or self.max_attempts:
                raise SynthesisError("--turns, --script, --set and --max-attempts are for --self-prompted")
            return
        if server is not None:
            raise SynthesisError(
                "--self-prompted needs a model on this machine (--model): a server of chat completions writes turns of "
                "the assistant alone"
            )
        given = [name for name, value in {"a SOURCE": sources, **options}.items() if value]
        if given:
            raise SynthesisError(f"--self-prompted reads no sources; leave {', '.join(given)} out")

    def settings(self, model: str | None) -> dict[str, Any] | None:
        """The section of the settings; None without `--self-prompted`.

        Raises:
            SynthesisError: a limit is not KEY=VALUE, or no such limit exists.
        """
        if self.count is None or model is None:
            return None
        from edgerazor.synthesize.model_digest import model_digest

        known = [name for name in SelfPrompting.model_fields if name not in _NOT_LIMITS]
        values: dict[str, Any] = {"turns": self.turns or 1, "script": self.script, "model_digest": model_digest(model)}
        for limit in self.limits:
            key, equals, value = limit.partition("=")
            if not equals or key not in known:
                raise SynthesisError(f"--set {limit}: expected KEY=VALUE; no limit '{key}'{nearest(key, known)}")
            values[key] = value
        return values

    def write(self, output: Path, settings: SynthesisSettings, open_writer: Callable[..., Any]) -> bool:
        """Run, and say what was done; True: it was interrupted."""
        from edgerazor.synthesize.self_prompted import self_prompt

        assert self.count is not None
        result = self_prompt(
            output, settings, count=self.count, open_writer=open_writer, max_attempts=self.max_attempts
        )
        _print(result, output)
        return result.interrupted


def _print(result: "SelfPromptedResult", output: Path) -> None:
    if result.interrupted:
        there = f"{output} holds {result.rows} of {result.wanted} dialogues"
        typer.echo(f"stopped; {there}. The same command goes on from there.", err=True)
        return
    typer.echo(
        f"wrote {result.written} dialogues to {output} in {result.seconds:.0f} s; it holds {result.rows} of "
        f"{result.wanted}"
    )
    if result.present:
        typer.echo(f"  {result.present} were written before")
    typer.echo(f"  {result.judged} were tried; refused were {result.explain_refusals()}")
    if result.new_tokens:
        typer.echo(f"  {result.new_tokens} tokens, {result.new_tokens / result.seconds:.0f} a second")
