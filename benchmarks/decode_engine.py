"""What every worker of the decode benchmark does: open a model, write the likeliest tokens after a prompt, and print
what came of it as one line of JSON. The standard library alone: peers run it in environments of their own."""

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol


@dataclass(frozen=True)
class Written:
    """Tokens after a prompt; seconds until the first of them, and of all others together."""

    tokens: list[int]
    prompt_seconds: float
    decode_seconds: float


class Engine(Protocol):
    """A model in an engine.

    Attributes:
        version: name and version.
    """

    version: str

    def write(self, prompt: list[int], count: int) -> Written:
        """The `count` likeliest tokens after the prompt alone, whatever was written before."""
        ...


def by_steps(feed: Callable[[list[int]], int], prompt: list[int], count: int) -> Written:
    """With an engine that takes tokens and returns the likeliest next one."""
    started = time.perf_counter()
    tokens = [feed(prompt)]
    read = time.perf_counter()
    while len(tokens) < count:
        tokens.append(feed(tokens[-1:]))
    return Written(tokens, read - started, time.perf_counter() - read)


def by_difference(generate: Callable[[list[int], int], list[int]], prompt: list[int], count: int) -> Written:
    """With an engine that only writes whole texts: one of a single token first, then the long one."""
    started = time.perf_counter()
    generate(prompt, 1)
    read = time.perf_counter()
    tokens = generate(prompt, count)
    written = time.perf_counter()
    return Written(tokens, read - started, written - read - (read - started))


def resident() -> float:
    """Resident memory of this process in MiB."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(float(line.split()[1]) for line in lines if line.startswith("VmRSS:")) / 1024


def answer(open_engine: Callable[[dict[str, Any]], Engine], request: dict[str, Any]) -> dict[str, Any]:
    """Figures of one engine.

    Args:
        open_engine: opens `request["model"]` with `request["threads"]`.
        request: with the ids of the `prompt`, how many tokens are `new`, and whether `tokens` are asked for, or times.

    Returns:
        Tokens, tokens per second of prompt and decoding, and the memory that loading and running added, in MiB.
    """
    before = resident()
    engine = open_engine(request)
    prompt, new = request["prompt"], request["new"]
    engine.write(prompt[:8], 2)
    written = engine.write(prompt, new)
    return {
        "version": engine.version,
        "tokens": [int(token) for token in written.tokens],
        "prompt": len(prompt) / written.prompt_seconds,
        "decode": (new - 1) / written.decode_seconds,
        "memory": resident() - before,
        **getattr(engine, "facts", {}),
    }


def main(work: Callable[[dict[str, Any]], dict[str, Any]], given: list[str] | None = None) -> None:
    """The command line of a worker: one JSON object in, one out."""
    parser = argparse.ArgumentParser()
    parser.add_argument("request", type=json.loads)
    print("\n" + json.dumps(work(parser.parse_args(given).request)))
