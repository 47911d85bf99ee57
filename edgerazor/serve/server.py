"""Running the server until it is told to end."""

import asyncio
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import uvicorn

from edgerazor.errors import EdgeRazorError
from edgerazor.serve.app import create_app
from edgerazor.serve.models import ModelTable
from edgerazor.serve.settings import ServeSettings

_CLEAN_UP_SECONDS = 2  # for the last frames, after answers were told to end


class Server(uvicorn.Server):
    """Lets answers finish for a while when it is told to end, then ends each with an error.

    Args:
        models: loaded.
        settings: limits and doors.
        app: other arguments of `create_app`.
    """

    def __init__(self, models: ModelTable, settings: ServeSettings, **app: Any):
        self._models, self._settings = models, settings
        grace = max(1, round(settings.grace_seconds)) + _CLEAN_UP_SECONDS
        super().__init__(
            uvicorn.Config(
                create_app(models, settings, **app),
                log_level="error",
                access_log=False,
                server_header=False,
                ws="none",
                lifespan="off",
                timeout_graceful_shutdown=grace,
            )
        )

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Take no more requests; wait for the answers under way."""
        timer = asyncio.get_running_loop().call_later(self._settings.grace_seconds, self.end_answers)
        try:
            await super().shutdown(sockets)
        finally:
            timer.cancel()
            self.end_answers()

    def end_answers(self) -> None:
        """End all answers with an error."""
        for model in self._models:
            model.jobs.end()


def listen(settings: ServeSettings) -> socket.socket:
    """A socket that listens where the settings say.

    Raises:
        EdgeRazorError: there is no such address here, or it is taken.
    """
    try:
        family, _, _, _, address = socket.getaddrinfo(
            settings.host, settings.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        return socket.create_server(address[:2], family=family, backlog=256)
    except (OSError, OverflowError) as error:
        number = error.errno if isinstance(error, OSError) and not isinstance(error, socket.gaierror) else None
        reason = os.strerror(number) if number else str(error)
        raise EdgeRazorError(
            f"{settings.host}:{settings.port}: cannot listen there: {reason}; give another --host or --port"
        ) from error


def serve(models: ModelTable, settings: ServeSettings, *, on_ready: Callable[[str], None]) -> None:
    """Answer requests until SIGTERM or Ctrl-C.

    Args:
        models: loaded.
        settings: limits and doors.
        on_ready: called with the address, such as http://127.0.0.1:8000, before the first request is taken.

    Raises:
        EdgeRazorError: see `listen`.
        KeyboardInterrupt: Ctrl-C ended it.
    """
    with listen(settings) as taken:
        host, port = taken.getsockname()[:2]
        on_ready(f"http://{f'[{host}]' if ':' in host else host}:{port}")
        with _sigterm_is_no_failure():
            Server(models, settings).run(sockets=[taken])


@contextmanager
def _sigterm_is_no_failure() -> Iterator[None]:
    """uvicorn raises the signal that ended it once more when it is done."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, lambda *_: None)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
