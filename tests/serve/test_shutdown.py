"""A server that is told to end lets answers finish, and ends those that do not with an error that clients read."""

import json
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from tests.runs import save_model
from tests.serve.serving import Parrot, serving
from tests.serve.test_limits import Gate, connect, read_all

ROOT = Path(__file__).parents[2]
SHUTTING_DOWN = {
    "error": {"message": "the server is shutting down", "type": "server_error", "param": None, "code": "shutting_down"}
}


def test_an_answer_under_way_is_finished() -> None:
    gate = Gate()
    with serving(Parrot(gate), grace_seconds=30) as address:
        connection = connect(address, {"prompt": "a", "max_tokens": 5, "stream": True})
        assert gate.reached.wait(60)
        address.server.should_exit = True
        address.wait_for(lambda: not address.server.servers[0].is_serving())
        gate.open.set()
        body = read_all(connection)
        assert body.count(b'"text":"x"') == 5 and b"[DONE]" in body and b"error" not in body


def test_answers_that_take_longer_end_with_an_error() -> None:
    steps = threading.Semaphore(3)
    with serving(Parrot(lambda: steps.acquire(timeout=60) and None), queue=4) as address:
        streams = [
            connect(address, {"prompt": "a", "max_tokens": 5, "stream": stream}) for stream in (True, True, False)
        ]
        address.wait_for(lambda: address.models[0].jobs.waiting == 2 and address.models[0].metrics.new_tokens == 3)
        address.server.should_exit = True
        under_way, *waiting = map(read_all, streams)
        steps.release(100)
    assert under_way.count(b'"text":"x"') == 3
    last, done = under_way.split(b"data: ")[-2:]
    assert json.loads(last.split(b"\n")[0]) == SHUTTING_DOWN and done.startswith(b"[DONE]")
    for answer in waiting:
        head, _, body = answer.partition(b"\r\n\r\n")
        assert b"503" in head.splitlines()[0] and json.loads(body) == SHUTTING_DOWN


@pytest.mark.subprocess
def test_the_command_serves_until_it_is_told_to_end(tmp_path: Path) -> None:
    model = save_model(tmp_path / "teacher")
    command = [sys.executable, "-m", "edgerazor", "serve", f"tiny={model}", "--port", "0", "--grace", "0"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stderr is not None
        assert process.stdout.readline().startswith("tiny: ")
        port = int(process.stdout.readline().rsplit(":", 1)[1].removesuffix("/v1\n"))
        body = json.dumps({"prompt": "def", "max_tokens": 100, "stream": True}).encode()
        with socket.create_connection(("127.0.0.1", port)) as connection:
            connection.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\n")
            connection.sendall(f"Content-Length: {len(body)}\r\n\r\n".encode() + body)
            assert b"200 OK" in connection.recv(100)
            process.send_signal(signal.SIGTERM)
            rest = b"".join(iter(lambda: connection.recv(65536), b""))
        assert process.wait(60) == 0 and b"data: [DONE]" in rest
        assert "Traceback" not in process.stderr.read()
