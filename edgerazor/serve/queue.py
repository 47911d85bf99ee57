"""Requests of one model wait in line; a thread of the model's own answers them one after the other."""

import asyncio
import logging
import math
import threading
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from edgerazor.errors import EdgeRazorError
from edgerazor.serve.errors import ApiError

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _End:
    """Nothing more comes, or the reason why."""

    error: ApiError | None = None


class Job:
    """A request on its way: made and read by the server's event loop, worked on in the model's thread.

    Waking the loop costs the model's thread the interpreter, so it is done where the loop waits for an event alone.

    Args:
        work: makes the events of the answer; called in the model's thread. It is closed early where `ended` is set.

    Attributes:
        ended: nobody wants the rest.
    """

    def __init__(self, work: Callable[["Job"], Iterator[Any]]):
        self.ended = False
        self._work = work
        self._loop = asyncio.get_running_loop()
        self._events = deque[Any]()
        self._arrived = asyncio.Event()
        self._is_waited_for = self._over = False

    async def take(self, gather: float = 0.0) -> list[Any]:
        """Events since the last call, at least one; none at the end.

        Args:
            gather: seconds that events may gather before they are looked at; the end is seen at once.

        Raises:
            ApiError: the request cannot be answered, or not to the end.
        """
        self._arrived.clear()
        if gather and not self._over:
            await self._let_gather(gather)
        self._is_waited_for = True
        while not self._events:
            await self._arrived.wait()
            self._arrived.clear()
        self._is_waited_for = False
        taken = []
        while self._events and not isinstance(self._events[0], _End):
            taken.append(self._events.popleft())
        if not taken and (error := self._events[0].error) is not None:
            raise error
        return taken

    def end(self, error: ApiError | None = None) -> None:
        """Let the reader see the end at once, and the thread stop at the next token."""
        self.ended = True
        self._put(_End(error))

    async def _let_gather(self, seconds: float) -> None:
        timer = None if seconds == math.inf else self._loop.call_later(seconds, self._arrived.set)
        try:
            await self._arrived.wait()
        finally:
            if timer is not None:
                timer.cancel()

    def run(self) -> None:
        """Do the work, in the thread of the model."""
        end = _End()
        try:
            for event in self._work(self):
                self._put(event)
        except ApiError as error:
            end = _End(error)
        except EdgeRazorError as error:
            end = _End(ApiError(500, str(error), code="engine_failed"))
        except Exception as error:
            _log.exception("an answer failed")
            end = _End(ApiError(500, f"the answer failed: {type(error).__name__}", code="internal_error"))
        self._put(end)

    def _put(self, event: Any) -> None:
        self._events.append(event)
        self._over |= isinstance(event, _End)
        if (self._is_waited_for or self._over) and not self._loop.is_closed():
            self._is_waited_for = False
            self._loop.call_soon_threadsafe(self._arrived.set)


class JobQueue:
    """A thread that runs jobs in the order they came.

    Args:
        name: of the model.
        size: jobs that may wait.
    """

    def __init__(self, name: str, size: int):
        self._name, self._size = name, size
        self._changed = threading.Condition()
        self._waiting = deque[Job]()
        self._running: Job | None = None
        self._closed = False
        self._thread = threading.Thread(target=self._run, name=f"model {name}", daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        """Jobs in line."""
        return len(self._waiting)

    @property
    def running(self) -> int:
        """1 while a job is worked on."""
        return int(self._running is not None)

    def submit(self, job: Job) -> None:
        """Put a job in line.

        Raises:
            ApiError: the line is full, or the server ends.
        """
        with self._changed:
            if self._closed:
                raise ApiError(503, "the server is shutting down", code="shutting_down")
            if len(self._waiting) >= self._size and (self._waiting or self._running):
                raise ApiError(
                    503,
                    f"{len(self._waiting)} requests of '{self._name}' are waiting already; try again later",
                    code="queue_full",
                    headers={"Retry-After": "1"},
                )
            self._waiting.append(job)
            self._changed.notify()

    def leave(self, job: Job) -> None:
        """Nobody waits for the job any more."""
        with self._changed:
            job.end()
            if job in self._waiting:
                self._waiting.remove(job)

    def end(self) -> None:
        """End all jobs with an error, and take no more."""
        with self._changed:
            self._closed = True
            ended = [*self._waiting, *([self._running] if self._running else [])]
            self._waiting.clear()
            for job in ended:
                job.end(ApiError(503, "the server is shutting down", code="shutting_down"))
            self._changed.notify()

    def close(self) -> None:
        """End all jobs, and wait for the thread."""
        self.end()
        self._thread.join()

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._closed)
                if not self._waiting:
                    return
                self._running = self._waiting.popleft()
            if not self._running.ended:
                self._running.run()
            with self._changed:
                self._running = None
