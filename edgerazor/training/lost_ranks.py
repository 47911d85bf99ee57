"""A process of several that ends before the run does: the others end as well, and say which one it was, and why."""

import os
import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import Any

from torch import distributed

from edgerazor.errors import TrainingError

_SECONDS_TO_ANSWER, _SECONDS_TO_READ, _SECONDS_TO_CONNECT = 40.0, 2.0, 5.0
_ENDED, _WAITS = "edgerazor/ended", "edgerazor/waits"


@contextmanager
def lost_ranks_named() -> Iterator[None]:
    """Name the ranks that are gone where an operation between processes fails; tell the others why this one ends.

    Ranks meet in the store by which they found each other (`MASTER_ADDR` and `MASTER_PORT`). One that fails leaves its
    reason there. One that finds others gone says that it is there, and waits for all but one to say so.

    Raises:
        TrainingError: other processes ended; with their ranks, and their reasons if they left any.
    """
    try:
        yield
    except BaseException as error:
        if not distributed.is_initialized() or distributed.get_world_size() == 1:
            raise
        if not is_between_ranks(error):
            _leave(error)
            raise
        raise TrainingError("\n".join(_missing())) from error


def is_between_ranks(error: BaseException) -> bool:
    """Whether an operation between processes failed, by the other side's fault, not one of this process alone."""
    return isinstance(error, distributed.DistError) or (isinstance(error, RuntimeError) and "/gloo/" in str(error))


def _leave(error: BaseException) -> None:
    """Say why this rank ends, before its connections close and the others notice."""
    with suppress(OSError, RuntimeError):
        _store().set(f"{_ENDED}/{distributed.get_rank()}", str(error) or type(error).__name__)


def _missing() -> list[str]:
    """One line for each rank that is gone."""
    ours, size = distributed.get_rank(), distributed.get_world_size()
    others = [rank for rank in range(size) if rank != ours]
    try:
        store = _store()
        store.set(f"{_WAITS}/{ours}", "")
        gone = _unanswered(store, others)
        reasons = {rank: store.get(f"{_ENDED}/{rank}").decode() for rank in gone if store.check([f"{_ENDED}/{rank}"])}
    except (OSError, RuntimeError):
        gone, reasons = [0], {}  # which holds the store
    if ours == 0:
        time.sleep(_SECONDS_TO_READ)  # the store may end with this process
    why = "it was killed, or its machine is gone"
    return [
        f"rank {rank} ended before the run did: {reasons.get(rank, why)}; if a checkpoint was saved, --resume goes on "
        "from it"
        for rank in gone
    ]


def _unanswered(store: Any, others: Sequence[int]) -> list[int]:
    """The ranks that did not say within some seconds that they are there; one at least is not."""
    until = time.monotonic() + _SECONDS_TO_ANSWER
    while True:
        gone = [rank for rank in others if not store.check([f"{_WAITS}/{rank}"])]
        if len(gone) <= 1 or time.monotonic() > until:
            return gone
        time.sleep(0.1)


def _store() -> Any:
    """A connection of our own; OSError where there is nothing to connect to, which TCPStore would try for long."""
    address, port, timeout = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]), _SECONDS_TO_CONNECT
    socket.create_connection((address, port), timeout).close()
    return distributed.TCPStore(  # type: ignore[attr-defined]
        address, port, is_master=False, wait_for_workers=False, timeout=timedelta(seconds=timeout)
    )
