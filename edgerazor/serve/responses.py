"""Sending what a job makes, as one object or as a stream, and ending the job when the client goes away."""

import asyncio
import math
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress

from starlette.responses import JSONResponse
from starlette.types import Receive, Scope, Send

from edgerazor.serve.errors import ApiError
from edgerazor.serve.generation import Written
from edgerazor.serve.models import ServedModel
from edgerazor.serve.objects import DONE, ChatShape, TextShape, frame
from edgerazor.serve.queue import Job

_GONE = 499
_TICK = 0.025  # seconds between two writes to a client, unless tokens take longer
_HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),
]


class Answer:
    """An application of ASGI that answers one request.

    Args:
        model: that is asked.
        job: makes the events.
        shape: makes objects of them.
        stream: as server-sent events.
    """

    def __init__(self, model: ServedModel, job: Job, shape: ChatShape | TextShape, *, stream: bool):
        self._model, self._job, self._shape, self._stream = model, job, shape, stream
        self._gone = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer; an error before the first event is raised.

        Raises:
            ApiError: the request cannot be answered.
        """
        watcher = asyncio.create_task(self._leave_with_client(receive))
        status = 200
        try:
            await (self._send_stream(send) if self._stream else self._send_whole(scope, receive, send))
        except ApiError as error:
            status = error.status
            raise
        finally:
            watcher.cancel()
            self._model.jobs.leave(self._job)
            self._model.metrics.requests[_GONE if self._gone else status] += 1

    async def _leave_with_client(self, receive: Receive) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        self._gone = True
        self._model.jobs.leave(self._job)

    async def _send_whole(self, scope: Scope, receive: Receive, send: Send) -> None:
        while events := await self._job.take(gather=math.inf):
            for event in events:
                for _ in self._shape.chunks(event):
                    pass
        if not self._gone:
            await JSONResponse(self._shape.whole())(scope, receive, send)

    async def _send_stream(self, send: Send) -> None:
        events = await self._job.take()
        if self._gone:
            return
        await send({"type": "http.response.start", "status": 200, "headers": _HEADERS})
        with suppress(OSError):  # the client is gone
            async for body in self._bodies(events):
                await send({"type": "http.response.body", "body": body, "more_body": True})
            await send({"type": "http.response.body", "body": DONE, "more_body": False})

    async def _bodies(self, events: Sequence[object]) -> AsyncIterator[bytes]:
        try:
            while events:
                if body := b"".join(frame(chunk) for event in events for chunk in self._shape.chunks(event)):
                    yield body
                wrote = any(isinstance(event, Written) for event in events)
                events = await self._job.take(gather=_TICK if wrote else 0.0)
            for chunk in self._shape.last_chunk():
                yield frame(chunk)
        except ApiError as error:
            yield frame(error.to_dict())
