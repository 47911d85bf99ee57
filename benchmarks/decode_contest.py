"""The contest of engines: files, then the gate of tokens, then interleaved rounds, each in a process of its own."""

import argparse
import importlib
import json
import statistics
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from decode_files import bytes_per_token, file_of
from rich.console import Console

from edgerazor.core.contracts.exporter import size_of
from edgerazor.errors import EdgeRazorError

# In standard deviations of the logits: engines round inputs to int8, keys and values to 16 bits, and neighbours swap.
LARGEST_GAP = 0.3
Key = tuple[str, str, str]


@dataclass(frozen=True)
class Contestant:
    """An engine and what it runs.

    Attributes:
        width: of the student; `label` in the table.
        engine, form: names of engine and format.
        worker, kind: script, and what it is told about itself.
        python: interpreter.
    """

    width: str
    engine: str
    form: str
    label: str
    worker: str
    kind: str
    python: str

    @property
    def key(self) -> Key:
        return self.label, self.engine, self.form


def quartiles(rounds: Sequence[Mapping[str, float]], name: str) -> tuple[float, float, float]:
    """Lower quartile, median and upper quartile of a figure."""
    values = [figures[name] for figures in rounds]
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive") if len(values) > 1 else values * 3
    return low, middle, high


class Contest:
    """Runs workers and keeps what they say.

    Attributes:
        players: all contestants; those with an entry in `rounds` were measured.
        gates: per contestant, how many tokens are the judge's, or what went wrong.
        sizes, moved: megabytes of the file, and bytes of weights that a token needs.
        copies: figures of the copy, one per round.
    """

    def __init__(
        self,
        players: Sequence[Contestant],
        packed: Mapping[str, Path],
        work: Path,
        prompt: list[int],
        arguments: argparse.Namespace,
        console: Console,
    ):
        self.players, self.console = list(players), console
        self.gates: dict[Key, str] = {}
        self.sizes: dict[Key, float] = {}
        self.moved: dict[Key, int] = {}
        self.rounds: dict[Key, list[dict[str, Any]]] = {}
        self.copies: list[dict[str, float]] = []
        self._packed, self._work, self._arguments = packed, work, arguments
        self._paths: dict[Key, Path] = {}
        context = len(prompt) + arguments.new + 32
        self._common = {"prompt": prompt, "new": arguments.new, "threads": arguments.threads, "context": context}

    def check(self) -> None:
        """Write every file, let every engine write its tokens, and compare them with the judge's."""
        judges: dict[str, tuple[list[int], Any]] = {}
        for player in self.players:
            try:
                path = file_of(self._work, self._packed[player.width], player.width, player.form, self.console)
                self._paths[player.key] = path
                figures = self._run(player, tokens=True)
                if player.width not in judges:
                    judges[player.width] = self._judge(player.width)
                self.gates[player.key] = compare(figures["tokens"], *judges[player.width])
            except EdgeRazorError as error:
                self.gates[player.key] = f"no file: {str(error).splitlines()[0]}"
            except WorkerError as error:
                self.gates[player.key] = str(error)
            else:
                self.sizes[player.key] = size_of(path) / 1e6
                if moved := figures.get("weight_bytes") or bytes_per_token(path):
                    self.moved[player.key] = moved
                self.rounds[player.key] = []
            self.console.print(" ".join(player.key), "|", self.gates[player.key], highlight=False, soft_wrap=True)

    def measure(self) -> None:
        """All rounds of those that passed, and of the copy."""
        for turn in range(self._arguments.rounds):
            copy = {"threads": self._arguments.threads, "megabytes": self._arguments.megabytes}
            self.copies.append(self._start("decode_copy", copy))
            for player in self.players:
                if player.key in self.rounds:
                    figures = {
                        name: value for name, value in self._run(player, tokens=False).items() if name != "tokens"
                    }
                    self.rounds[player.key].append(figures)
                    shown = {name: round(value, 1) for name, value in figures.items() if isinstance(value, float)}
                    self.console.print(f"round {turn + 1}", *player.key, shown, highlight=False, soft_wrap=True)

    def _run(self, player: Contestant, *, tokens: bool) -> dict[str, Any]:
        request = {**self._common, "model": str(self._paths[player.key]), "kind": player.kind, "tokens": tokens}
        return self._start(player.worker, request, player.python)

    def _judge(self, width: str) -> tuple[list[int], Any]:
        logits = self._work / f"judge-{width}.npy"
        request = {**self._common, "model": str(self._packed[width]), "kind": "judge", "logits": str(logits)}
        tokens = self._start("decode_torch", request)["tokens"]
        found = np.load(logits)
        logits.unlink()
        return tokens, found

    def _start(self, worker: str, request: Mapping[str, Any], python: str | None = None) -> dict[str, Any]:
        if self._arguments.in_process:
            return _within(worker, dict(request))
        python = python or self._arguments.python["edgerazor"]
        script = Path(__file__).with_name(f"{worker}.py")
        try:
            command = [python, str(script), json.dumps(request)]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
        except OSError as error:
            raise WorkerError(f"missing: {python}: {error.strerror}") from error
        if done.returncode:
            raise WorkerError(_reason(done))
        found: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
        return found


class WorkerError(Exception):
    """A worker could not do its work."""


def compare(tokens: Sequence[int], expected: Sequence[int], logits: Any) -> str:
    """In words, how far greedy tokens are those of the judge.

    Args:
        tokens: of an engine.
        expected: of the judge.
        logits: of the judge, float32 `[new, vocabulary]`; up to the place where tokens part both read the same text.

    Raises:
        WorkerError: there are too few, or the first other token is not nearly the likeliest.
    """
    if len(tokens) != len(expected):
        raise WorkerError(f"gate failed: {len(tokens)} tokens where {len(expected)} were asked for")
    pairs = enumerate(zip(tokens, expected, strict=True))
    parted = next((index for index, (found, wanted) in pairs if found != wanted), None)
    if parted is None:
        return f"all {len(expected)} equal"
    row = logits[parted]
    gap = float((row.max() - row[tokens[parted]]) / row.std())
    text = f"token {parted + 1} is another, {gap:.3f} deviations less likely"
    if not gap <= LARGEST_GAP:
        raise WorkerError(f"gate failed: {text}")
    return text


def _within(worker: str, request: dict[str, Any]) -> dict[str, Any]:
    try:
        found: dict[str, Any] = importlib.import_module(worker).work(request)
    except ImportError as error:
        raise WorkerError(f"missing: {error}") from error
    return found


def _reason(done: "subprocess.CompletedProcess[str]") -> str:
    """The last line that says something, or how the process ended."""
    lines = [line.strip() for line in (done.stderr or done.stdout).splitlines() if line.strip()]
    last = lines[-1] if lines else ""
    if done.returncode < 0:
        return f"failed: ended by signal {-done.returncode}: {last}"
    if last.startswith(("ModuleNotFoundError", "ImportError")):
        return f"missing: {last.partition(': ')[2]}"
    return f"failed: {last}" if last else f"failed: exit status {done.returncode}"
