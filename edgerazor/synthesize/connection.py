"""JSON over HTTP with the standard library: patient where waiting may help, clear where it cannot."""

import json
import random
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from ssl import SSLCertVerificationError
from typing import Any
from urllib.parse import urlsplit

from edgerazor.errors import SynthesisError

_CONNECT_SECONDS, _LARGEST_ANSWER = 15.0, 64 << 20
_FIRST_PAUSE, _LONGEST_PAUSE, _LONGEST_ASKED_FOR = 0.5, 30.0, 600.0
_SHOWN = 400
_RETRIED = frozenset({408, 409, 425, 429})


class StoppedError(Exception):
    """The connection was told to stop; nobody sees this one."""


class StatusError(SynthesisError):
    """The server answered with an error; `status` says which."""

    def __init__(self, message: str, status: int):
        super().__init__(message)
        self.status = status


@dataclass(frozen=True)
class ServerAddress:
    """Where the server is and how patient to be.

    Attributes:
        base_url: for example http://localhost:8000/v1.
        api_key: sent as a bearer token; None: no such header.
        timeout: seconds that an answer may be silent.
        retries: further attempts after a broken connection, 408, 409, 425, 429 or 5xx.
        notify: called with a line about every attempt that failed.
    """

    base_url: str
    api_key: str | None = None
    timeout: float = 600.0
    retries: int = 8
    notify: Callable[[str], None] = lambda line: None


class Connection:
    """Requests to one server, from any number of threads; each has a connection of its own, closed after it.

    Raises:
        SynthesisError: the address is not one of HTTP.
    """

    def __init__(self, address: ServerAddress):
        parts = urlsplit(address.base_url)
        try:
            self._host, self._port = parts.hostname, parts.port
        except ValueError as error:
            raise SynthesisError(f"{address.base_url}: is no address of a server: {error}") from error
        if parts.scheme not in ("http", "https") or not self._host or parts.query or parts.fragment:
            raise SynthesisError(f"{address.base_url}: is no address of a server; expected http://HOST:PORT/v1")
        if parts.username is not None:
            raise SynthesisError("the address of the server holds a user name; a key belongs into the environment")
        self.address, self._secure, self._path = address, parts.scheme == "https", parts.path.rstrip("/")
        self._headers = {"Content-Type": "application/json", "Accept": "application/json", "Connection": "close"}
        if address.api_key is not None:
            if not address.api_key.isascii() or not address.api_key.isprintable():
                raise SynthesisError("the API key holds characters that no header can; is there a line break in it?")
            self._headers["Authorization"] = f"Bearer {address.api_key}"
        self._open: set[HTTPConnection] = set()
        self._lock, self._stopped = threading.RLock(), threading.Event()

    @property
    def stopped(self) -> bool:
        """True after `stop`."""
        return self._stopped.is_set()

    def stop(self) -> None:
        """Break off all requests; those who wait for one get StoppedError."""
        self._stopped.set()
        with self._lock:
            for connection in self._open:
                if connection.sock is not None:
                    with suppress(OSError):
                        connection.sock.shutdown(socket.SHUT_RDWR)

    def exchange(self, method: str, path: str, body: Any = None, *, patient: bool = True) -> Any:
        """Send `body` as JSON to `base_url` + `path`, return the JSON that comes back.

        Args:
            method: of HTTP.
            path: begins with a slash.
            body: None: none.
            patient: also try again where there is no connection at all; overloaded servers are asked again anyway.

        Raises:
            SynthesisError: the last attempt failed, or the answer is no JSON.
            StatusError: the server answered with an error for which there is no use in asking again.
        """
        data = None if body is None else json.dumps(body, default=str).encode()
        for attempt in range(self.address.retries + 1):
            pause = min(_LONGEST_PAUSE, _FIRST_PAUSE * 2**attempt) * random.uniform(0.5, 1.0)
            try:
                status, reason, retry_after, text = self._attempt(method, path, data)
            except (OSError, HTTPException) as error:
                if self.stopped:
                    raise StoppedError from error
                fault = SynthesisError(f"{self.address.base_url}: {_explain(error)}")
                if not patient or isinstance(error, SSLCertVerificationError):
                    raise fault from error
            else:
                if 200 <= status < 300:
                    return self._parsed(text, path)
                message = f"{self.address.base_url}{path}: the server answered {status} {reason}: {server_words(text)}"
                fault = StatusError(message, status)
                if status not in _RETRIED and status < 500:
                    raise fault
                pause = max(pause, retry_after)
            if attempt < self.address.retries:
                self.address.notify(f"{fault}; trying again in {pause:.1f} s ({attempt + 1} of {self.address.retries})")
                if self._stopped.wait(pause):
                    raise StoppedError
        raise SynthesisError(f"{fault} (after {self.address.retries + 1} attempts)")

    def _attempt(self, method: str, path: str, data: bytes | None) -> tuple[int, str, float, str]:
        kind = HTTPSConnection if self._secure else HTTPConnection
        connection = kind(str(self._host), self._port, timeout=_CONNECT_SECONDS)
        with self._lock:
            if self.stopped:
                raise StoppedError
            self._open.add(connection)
        try:
            connection.connect()
            connection.sock.settimeout(self.address.timeout)
            if self.stopped:
                raise StoppedError
            connection.request(method, self._path + path, data, self._headers)
            response = connection.getresponse()
            text = response.read(_LARGEST_ANSWER).decode("utf-8", "replace")
            if response.length:
                raise HTTPException(f"the answer broke off {response.length} bytes before its end")
            return response.status, response.reason, _seconds(response.getheader("Retry-After")), text
        finally:
            with self._lock:
                self._open.discard(connection)
            connection.close()

    def _parsed(self, text: str, path: str) -> Any:
        try:
            return json.loads(text)
        except (ValueError, RecursionError) as error:
            shown = shortened(text) or "nothing"
            raise SynthesisError(f"{self.address.base_url}{path}: the answer is no JSON: {shown}") from error


def server_words(text: str) -> str:
    """What an error's body says, wherever servers put it."""
    try:
        said = json.loads(text)
    except (ValueError, RecursionError):
        return shortened(text) or "without a word"
    for key in ("error", "message", "detail"):
        if isinstance(said, dict) and said.get(key):
            said = said[key]
    return shortened(said if isinstance(said, str) else json.dumps(said, ensure_ascii=False))


def shortened(text: str) -> str:
    """On one line, and not too long."""
    line = " ".join(text.split())
    return line if len(line) <= _SHOWN else f"{line[:_SHOWN]}..."


def _explain(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error) or f"the connection broke ({type(error).__name__})"


def _seconds(header: str | None) -> float:
    """What Retry-After asks to wait; 0 without one, and where it is a date: our own pauses then hold."""
    return min(float(header), _LONGEST_ASKED_FOR) if header is not None and header.isdecimal() else 0.0
