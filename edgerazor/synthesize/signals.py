"""SIGINT and SIGTERM end the writing, not the program."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def stopped_by_signals(stop: Callable[[], None]) -> Iterator[list[int]]:
    """Call `stop` at the first signal, which is then in the list; a second SIGINT interrupts at once.

    Python runs handlers in the main thread, between two of its instructions. Inside, that thread must not wait without
    a limit of time: a signal that arrives just before it begins to wait, or in another thread, does not wake it.
    """
    received: list[int] = []

    def handle(number: int, frame: FrameType | None) -> None:
        if not received:
            received.append(number)
            stop()
        elif number == signal.SIGINT:
            raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield received
        return
    previous = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield received
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
