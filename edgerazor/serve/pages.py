"""The playground: a page with its style, its script and its icon, read once from the package."""

from collections.abc import Awaitable, Callable, Iterator
from importlib.resources import files

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

_HEADERS = {
    # The page asks its own server alone; the second rule is for the arrow that the style draws.
    "Content-Security-Policy": (
        "default-src 'self'; img-src 'self' data:; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}
_TYPES = {"js": "text/javascript", "html": "text/html", "css": "text/css", "svg": "image/svg+xml"}


def page_routes() -> Iterator[Route]:
    """`/`, and every file of the page under `/playground/`."""
    for file in files("edgerazor.serve").joinpath("playground").iterdir():
        kind = _TYPES.get(file.name.rpartition(".")[2])
        if kind is not None:
            path = "/" if file.name == "index.html" else f"/playground/{file.name}"
            yield Route(path, _answers(file.read_bytes(), kind))


def _answers(content: bytes, kind: str) -> Callable[[Request], Awaitable[Response]]:
    async def answer(request: Request) -> Response:
        return Response(content, headers=_HEADERS, media_type=kind)

    return answer
