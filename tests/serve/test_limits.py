"""Who may come in, how much may wait, and what happens to those who go away."""

import http.client
import json
import socket
import threading
from collections.abc import Iterator

import pytest

from tests.serve.serving import Address, Parrot, serving

CHAT = {"messages": [{"role": "user", "content": "hello"}]}
LONG = {"prompt": "a", "max_tokens": 1500, "stream": True}


class Gate:
    """Holds an engine up until it is opened."""

    def __init__(self) -> None:
        self.reached, self.open = threading.Event(), threading.Event()

    def __call__(self) -> None:
        self.reached.set()
        assert self.open.wait(60)


@pytest.fixture
def gate() -> Iterator[Gate]:
    made = Gate()
    yield made
    made.open.set()


def connect(address: Address, body: dict, path: str = "/v1/completions") -> socket.socket:
    """A socket that has sent a request and read nothing."""
    content = json.dumps(body).encode()
    found = socket.create_connection(("127.0.0.1", address.port))
    found.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16384)
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(content)}\r\nConnection: close\r\n\r\n"
    found.sendall(head.encode() + content)
    return found


def read_all(connection: socket.socket) -> bytes:
    with connection:
        return b"".join(iter(lambda: connection.recv(65536), b""))


def figure(address: Address, name: str) -> float:
    _, _, body = address.send("/metrics")
    lines = [line for line in body.decode().splitlines() if line.startswith(f"edgerazor_{name}")]
    return sum(float(line.rpartition(" ")[2]) for line in lines)


def test_requests_beyond_the_queue_are_refused(gate: Gate) -> None:
    with serving(Parrot(gate), queue=2) as address:
        first = connect(address, {"prompt": "a"})
        assert gate.reached.wait(60)
        others = [connect(address, {"prompt": "a"}) for _ in range(2)]
        jobs = address.models[0].jobs
        address.wait_for(lambda: jobs.waiting == 2)
        status, headers, body = address.send("/v1/chat/completions", CHAT)
        assert status == 503 and headers["retry-after"] == "1"
        assert json.loads(body)["error"]["code"] == "queue_full"
        assert (figure(address, "queue_waiting"), figure(address, "queue_running")) == (2, 1)
        assert json.loads(address.send("/health")[2]) == {"status": "ok"}
        others.pop().close()  # whoever gives up makes room
        address.wait_for(lambda: jobs.waiting == 1)
        others.append(connect(address, {"prompt": "a"}))
        address.wait_for(lambda: jobs.waiting == 2)
        gate.open.set()
        assert all(b'"finish_reason":"length"' in read_all(answer) for answer in [first, *others])
        assert address.ask("again")["choices"][0]["message"]["content"] == "again"
        assert figure(address, 'requests_total{model="parrot",status="499"}') == 1


@pytest.mark.parametrize("stream", [False, True])
def test_writing_stops_when_the_client_goes_away(gate: Gate, stream: bool) -> None:
    with serving(Parrot(gate)) as address:
        connection = connect(address, {**LONG, "stream": stream})
        assert gate.reached.wait(60)
        connection.close()
        metrics = address.models[0].metrics
        address.wait_for(lambda: metrics.requests[499] == 1)
        gate.open.set()
        assert address.ask("next")["choices"][0]["message"]["content"] == "next"
        assert metrics.new_tokens < 10


def test_a_slow_reader_holds_nobody_up() -> None:
    with serving(Parrot()) as address:
        for taken in address.server.servers[0].sockets:
            taken.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        slow = connect(address, LONG)
        assert address.ask("quick")["choices"][0]["message"]["content"] == "quick"
        body = read_all(slow)
        assert body.count(b'"text":"x"') == 1500 and body.endswith(b"data: [DONE]\n\n\r\n0\r\n\r\n")


def test_a_key_is_asked_for() -> None:
    with serving(Parrot(), api_key="sécret") as address:
        for headers in ({}, {"Authorization": "Bearer secret"}, {"Authorization": "sécret".encode().decode("latin-1")}):
            for path, body in (("/v1/models", None), ("/v1/chat/completions", CHAT), ("/metrics", None)):
                status, given, answer = address.send(path, body, **headers)
                assert status == 401 and given["www-authenticate"] == "Bearer"
                assert json.loads(answer)["error"]["type"] == "authentication_error"
        right = {"Authorization": b"Bearer s\xc3\xa9cret".decode("latin-1")}
        assert address.send("/v1/chat/completions", CHAT, **right)[0] == 200
        assert address.send("/health")[0] == 200


def test_bodies_and_prompts_have_a_limit(server: Address) -> None:
    for size in ((1 << 20) + 1, 10_000_000):
        status, _, body = server.send("/v1/chat/completions", b" " * size)
        assert status == 413 and json.loads(body)["error"]["code"] == "body_too_large"
    message = {"role": "user", "content": "x" * 100}
    with serving(Parrot(), max_prompt_tokens=50) as address:
        status, _, body = address.send("/v1/chat/completions", {"messages": [message]})
        assert status == 400 and "takes at most 50" in json.loads(body)["error"]["message"]


def test_pages_of_other_hosts_are_let_in_by_name_alone(server: Address) -> None:
    foreign = {"Origin": "https://example.org"}
    status, headers, body = server.send("/v1/chat/completions", CHAT, **foreign)
    assert status == 403 and "--cors https://example.org" in json.loads(body)["error"]["message"]
    assert "access-control-allow-origin" not in headers
    assert server.send("/v1/models", Origin=f"http://127.0.0.1:{server.port}")[0] == 200
    # A name that somebody else lets point to this machine.
    assert server.send("/v1/models", Host="evil.example")[0] == 403
    assert server.send("/v1/models", Host="localhost:1234")[0] == 200
    with serving(Parrot(), origins=("https://example.org",)) as address:
        status, headers, _ = address.send("/v1/chat/completions", CHAT, **foreign)
        assert status == 200 and headers["access-control-allow-origin"] == "https://example.org"
        assert address.send("/v1/models", Origin="https://example.com")[0] == 403


def test_a_preflight_needs_no_key() -> None:
    with serving(Parrot(), api_key="k", origins=("https://example.org",)) as address:
        asked = {
            "Origin": "https://example.org",
            "Access-Control-Request-Method": "POST",
            "Access-Control-Request-Headers": "authorization,content-type",
        }
        connection = http.client.HTTPConnection("127.0.0.1", address.port)
        connection.request("OPTIONS", "/v1/chat/completions", headers=asked)
        answer = connection.getresponse()
        assert answer.status == 200 and "authorization" in answer.headers["access-control-allow-headers"]
        connection.close()


def test_what_is_not_there_is_an_error_object(server: Address) -> None:
    for path, body, status in (("/v1/nothing", None, 404), ("/v1/models", {}, 405), ("/v1/models/none", None, 404)):
        found, _, answer = server.send(path, body)
        assert found == status and set(json.loads(answer)["error"]) == {"message", "type", "param", "code"}
    found, _, answer = server.send("/v1/chat/completions", CHAT)
    assert found == 400 and json.loads(answer)["error"]["param"] == "model"
