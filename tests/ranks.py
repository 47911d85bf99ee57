"""`edgerazor` in two processes that train together, forked from one that has imported it and told as torchrun does."""

import socket
import time
from collections.abc import Sequence
from multiprocessing.context import ForkServerProcess
from pathlib import Path

from tests.forked_commands import end, start

RANKS = range(2)


def free_port() -> int:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return int(server.getsockname()[1])


def start_ranks(
    command: Sequence[object], logs: Path, limits: Sequence[dict[str, int]] = ({}, {})
) -> list[ForkServerProcess]:
    """Start both ranks, which write all they say into `logs`/RANK; `limits` are those of `forked_commands.start`."""
    logs.mkdir()
    shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
    return [
        start(command, logs / f"{rank}", environment={**shared, "RANK": f"{rank}", "LOCAL_RANK": f"{rank}"}, **limited)
        for rank, limited in zip(RANKS, limits, strict=True)
    ]


def end_ranks(ranks: list[ForkServerProcess], logs: Path) -> tuple[list[int], list[str]]:
    """Exit status and words of both."""
    codes = [end(rank) for rank in ranks]
    return codes, [(logs / f"{rank}").read_text() for rank in RANKS]


def wait_for(path: Path) -> None:
    """Until there is something at `path`; TimeoutError after two minutes."""
    until = time.monotonic() + 120
    while not path.exists():
        if time.monotonic() > until:
            raise TimeoutError(f"{path} does not appear")
        time.sleep(0.02)
