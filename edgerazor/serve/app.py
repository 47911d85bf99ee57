"""The application: routes, limits, and errors as objects."""

import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from edgerazor.serve.errors import ApiError
from edgerazor.serve.generation import Generation
from edgerazor.serve.guard import Guard
from edgerazor.serve.metrics import MEDIA_TYPE, metrics_text
from edgerazor.serve.models import ModelTable
from edgerazor.serve.objects import ChatShape, TextShape
from edgerazor.serve.pages import page_routes
from edgerazor.serve.requests import ChatRequest, CompletionRequest, GenerationRequest, parse
from edgerazor.serve.responses import Answer
from edgerazor.serve.settings import ServeSettings

_MOST_DISCARDED = 64 << 20


def new_id(kind: str) -> str:
    """A name that nothing else has."""
    return f"{kind}-{secrets.token_hex(12)}"


@dataclass(frozen=True)
class _Endpoints:
    models: ModelTable
    settings: ServeSettings
    new_id: Callable[[str], str]
    clock: Callable[[], float]

    async def health(self, request: Request) -> Response:
        return JSONResponse({"status": "ok"})

    async def metrics(self, request: Request) -> Response:
        figures = {model.name: (model.metrics, model.jobs) for model in self.models}
        return PlainTextResponse(metrics_text(figures), headers={"content-type": MEDIA_TYPE})

    async def list_models(self, request: Request) -> Response:
        return JSONResponse({"object": "list", "data": [model.to_dict() for model in self.models]})

    async def get_model(self, request: Request) -> Response:
        return JSONResponse(self.models.find(request.path_params["name"]).to_dict())

    async def chat_completions(self, request: Request) -> Any:
        arrived = time.perf_counter()
        wanted = parse(await self._body(request), ChatRequest)
        model = self.models.find(wanted.model)
        generation = Generation(model, self.settings, arrived)
        shape = ChatShape(*self._head("chatcmpl", model.name, wanted))
        job = model.submit(lambda job: generation.chat(wanted, job))
        return Answer(model, job, shape, stream=bool(wanted.stream))

    async def completions(self, request: Request) -> Any:
        arrived = time.perf_counter()
        wanted = parse(await self._body(request), CompletionRequest)
        model = self.models.find(wanted.model)
        generation = Generation(model, self.settings, arrived)
        shape = TextShape(*self._head("cmpl", model.name, wanted))
        job = model.submit(lambda job: generation.complete(wanted, job))
        return Answer(model, job, shape, stream=bool(wanted.stream))

    def _head(self, kind: str, name: str, wanted: GenerationRequest) -> tuple[Any, ...]:
        return self.new_id(kind), int(self.clock()), name, wanted.wants_usage, self.new_id

    async def _body(self, request: Request) -> bytes:
        limit, body, count = self.settings.max_body_bytes, bytearray(), 0
        async for chunk in request.stream():
            count += len(chunk)
            if count <= limit:
                body += chunk
            elif count > _MOST_DISCARDED:
                break  # a client that is still sending may never see the answer; up to here it does
        if count > limit:
            raise ApiError(413, f"the body has more than {limit} bytes", code="body_too_large")
        return bytes(body)


def create_app(
    models: ModelTable,
    settings: ServeSettings,
    *,
    new_id: Callable[[str], str] = new_id,
    clock: Callable[[], float] = time.time,
) -> Starlette:
    """The server's application.

    Args:
        models: loaded.
        settings: limits and doors.
        new_id: makes the ids of answers and calls of tools.
        clock: seconds since 1970.
    """
    endpoints = _Endpoints(models, settings, new_id, clock)
    cors = CORSMiddleware
    return Starlette(
        routes=[
            *page_routes(),
            Route("/health", endpoints.health),
            Route("/metrics", endpoints.metrics),
            Route("/v1/models", endpoints.list_models),
            Route("/v1/models/{name:path}", endpoints.get_model),
            Route("/v1/chat/completions", endpoints.chat_completions, methods=["POST"]),
            Route("/v1/completions", endpoints.completions, methods=["POST"]),
        ],
        middleware=[
            Middleware(cors, allow_origins=settings.origins, allow_methods=["GET", "POST"], allow_headers=["*"]),
            Middleware(Guard, settings=settings),
        ],
        exception_handlers={
            ApiError: _answer_error,
            HTTPException: _answer_http_error,
            ClientDisconnect: _answer_nobody,
            Exception: _answer_failure,
        },
    )


async def _answer_error(request: Request, error: Any) -> Response:
    return JSONResponse(error.to_dict(), error.status, headers=error.headers)


async def _answer_http_error(request: Request, error: Any) -> Response:
    message = f"{request.method} {request.url.path}: {error.detail.lower()}"
    found = ApiError(error.status_code, message, headers=error.headers)
    return await _answer_error(request, found)


async def _answer_nobody(request: Request, error: Any) -> Response:
    return Response(status_code=400)


async def _answer_failure(request: Request, error: Any) -> Response:
    return await _answer_error(request, ApiError(500, "the server failed", code="internal_error"))
