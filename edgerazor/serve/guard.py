"""Who may come in: a key, pages of other hosts only where they are allowed, and names of this machine."""

import hmac
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from edgerazor.serve.errors import ApiError
from edgerazor.serve.settings import LOOPBACK, ServeSettings

_LOCKED = ("/v1/", "/metrics")


class Guard:
    """Middleware that refuses requests before anything of them is read.

    A browser lets every page it shows send requests to this machine. Without a key, a page could make the server work
    for it (`Origin` tells), or read its answers by a name that it lets point here (`Host` tells).

    Args:
        app: what is guarded.
        settings: of the server.
    """

    def __init__(self, app: ASGIApp, settings: ServeSettings):
        self._app, self._settings = app, settings

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request through, or answer why not."""
        error = self._fault(scope["path"], Headers(scope=scope)) if scope["type"] == "http" else None
        if error is None:
            await self._app(scope, receive, send)
        else:
            await JSONResponse(error.to_dict(), error.status, headers=error.headers)(scope, receive, send)

    def _fault(self, path: str, headers: Headers) -> ApiError | None:
        origin, host = headers.get("origin"), headers.get("host", "")
        if origin is not None and not self._is_welcome(origin, host):
            message = f"pages of {origin[:200]} may not call this server; allow them with --cors {origin[:200]}"
            return ApiError(403, message, code="origin_not_allowed")
        if self._settings.api_key is None:
            if self._settings.is_local and _name(f"//{host}") not in LOOPBACK:
                message = f"this server answers to localhost, not to {host[:200]!r}; set --api-key to use other names"
                return ApiError(403, message, code="host_not_allowed")
            return None
        if path.startswith(_LOCKED):
            expected, given = f"Bearer {self._settings.api_key}", headers.get("authorization", "")
            if not hmac.compare_digest(given.encode("latin-1"), expected.encode()):
                what = "wrong" if given else "missing"
                message = f"the API key is {what}; send 'Authorization: Bearer KEY'"
                return ApiError(401, message, code="invalid_api_key", headers={"WWW-Authenticate": "Bearer"})
        return None

    def _is_welcome(self, origin: str, host: str) -> bool:
        allowed = self._settings.origins
        return "*" in allowed or origin in allowed or _place(origin) == host.lower()


def _place(origin: str) -> str | None:
    """Host and port of an origin; None where it is none."""
    try:
        return urlsplit(origin).netloc.lower() or None
    except ValueError:
        return None


def _name(address: str) -> str | None:
    try:
        return urlsplit(address).hostname
    except ValueError:
        return None
