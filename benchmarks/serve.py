"""Does the server hold? Clients of every kind at once; memory, queue, and what it adds to the engine's time.

python benchmarks/serve.py run/model.gguf --seconds 120      (any model that `edgerazor serve` takes)
"""

import argparse
import http.client
import json
import os
import random
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

HOST, KINDS = "127.0.0.1", ("blocking", "streaming", "slow", "vanishing", "large body", "wrong JSON")
MODEL = "model"


class Load:
    """Clients in threads, each of which sends one request after the other until the time is over.

    Args:
        port: of the server.
        length: tokens of an answer, at most.

    Attributes:
        found: how often each kind met which status, or which fault.
    """

    def __init__(self, port: int, length: int):
        self._port, self._length = port, length
        self.found = Counter[tuple[str, str]]()

    def run(self, clients: int, seconds: float) -> None:
        """All kinds in turn, most of them ordinary."""
        end = time.monotonic() + seconds
        ordinary = ("blocking", "streaming")
        kinds = [*KINDS, *(ordinary[index % 2] for index in range(clients - len(KINDS)))][:clients]
        threads = [
            threading.Thread(target=self._client, args=(kind, end, random.Random(index)))
            for index, kind in enumerate(kinds)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def _client(self, kind: str, end: float, chance: random.Random) -> None:
        while time.monotonic() < end:
            try:
                status = str(self._send(kind, chance))
            except (OSError, http.client.HTTPException, ValueError) as error:
                status = type(error).__name__
            self.found[kind, status] += 1
            if status != "200":
                time.sleep(chance.uniform(0.2, 1.0))

    def _send(self, kind: str, chance: random.Random) -> int | str:
        body: dict[str, Any] = {"prompt": f"Number {chance.randrange(10**6)} is", "max_tokens": self._length}
        content = json.dumps({**body, "top_p": 0.9, "stream": kind in ("streaming", "slow", "vanishing")}).encode()
        content = {"large body": b" " * 10_000_000, "wrong JSON": content[:-1]}.get(kind, content)
        connection = http.client.HTTPConnection(HOST, self._port, timeout=600)
        try:
            connection.request("POST", "/v1/completions", content)
            answer = connection.getresponse()
            if kind == "vanishing" and answer.status == 200:
                answer.read(chance.randrange(1, 400))
                return answer.status
            text = b"".join(_slowly(answer, 0.05 if kind == "slow" else 0.0))
            whole = b"data: [DONE]" in text if kind in ("slow", "streaming") else json.loads(text)
            return answer.status if answer.status != 200 or whole else "cut"
        finally:
            connection.close()


def _slowly(answer: http.client.HTTPResponse, pause: float) -> Iterator[bytes]:
    while piece := answer.read(200 if pause else None):
        yield piece
        time.sleep(pause)


@contextmanager
def serving(model: Path, queue: int, complaints: IO[str]) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """The command in a process of its own; process and port."""
    command = [sys.executable, "-m", "edgerazor", "serve", f"{MODEL}={model}", "--port", "0", "--queue", str(queue)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=complaints, text=True) as process:
        assert process.stdout is not None
        lines = iter(process.stdout.readline, "")
        port = next((int(found[1]) for line in lines if (found := re.search(r":(\d+)/v1$", line.strip()))), None)
        if port is None:
            complaints.seek(0)
            raise SystemExit(complaints.read() or "the server did not start")
        try:
            yield process, port
        finally:
            process.terminate()
            process.wait(60)


def figures(process: subprocess.Popen[str], port: int) -> dict[str, float]:
    """What /metrics says, without the labels, and seconds of processor time that the loop of the server took."""
    connection = http.client.HTTPConnection(HOST, port, timeout=60)
    connection.request("GET", "/metrics")
    found = re.findall(
        r"^edgerazor_(\w+)\{model=\"\w+\"\} (\S+)$", connection.getresponse().read().decode(), re.MULTILINE
    )
    connection.close()
    ticks = Path(f"/proc/{process.pid}/task/{process.pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    spent = (int(ticks[11]) + int(ticks[12])) / os.sysconf("SC_CLK_TCK")
    return {**{name: float(value) for name, value in found}, "loop_seconds": spent}


def memory(process: subprocess.Popen[str]) -> float:
    """MB that the process holds (Linux)."""
    text = Path(f"/proc/{process.pid}/status").read_text(encoding="utf-8")
    return int(re.search(r"VmRSS:\s+(\d+)", text)[1]) / 1000  # type: ignore[index]


def overhead(before: dict[str, float], after: dict[str, float]) -> dict[str, float]:
    """Seconds that an answer took beyond those of the engine, in parts of the latter, and ms of both per token."""
    names = ("seconds_total", "engine_seconds_total", "new_tokens_total", "loop_seconds")
    spent = {name: after[name] - before[name] for name in names}
    engine, tokens = spent["engine_seconds_total"], spent["new_tokens_total"]
    return {
        "tokens": tokens,
        "engine_ms": 1000 * engine / tokens,
        "answer_ms": 1000 * spent["seconds_total"] / tokens,
        "loop_ms": 1000 * spent["loop_seconds"] / tokens,
        "overhead": spent["seconds_total"] / engine - 1,
    }


def ask(port: int, length: int, **values: Any) -> None:
    """One answer alone, as a stream."""
    connection = http.client.HTTPConnection(HOST, port, timeout=600)
    body = {"prompt": "Once upon a time", "max_tokens": length, "stream": True, **values}
    connection.request("POST", "/v1/completions", json.dumps(body))
    answer = connection.getresponse().read()
    connection.close()
    assert b"[DONE]" in answer, answer


def measure(arguments: argparse.Namespace, say: Callable[[str], None]) -> dict[str, Any]:
    """Everything, in order: one client, many clients, one client again."""
    with tempfile.TemporaryFile("w+") as complaints:
        results = load_server(arguments, complaints, say)
        complaints.seek(0)
        return {**results, "complaints": complaints.read()}


def load_server(arguments: argparse.Namespace, complaints: IO[str], say: Callable[[str], None]) -> dict[str, Any]:
    """The figures of one server from its start to its end."""
    with serving(arguments.model, arguments.queue, complaints) as (process, port):
        ask(port, arguments.length)
        results: dict[str, Any] = {"memory_before_mb": memory(process)}
        for name, values in (("greedy", {"temperature": 0}), ("sampled", {"top_p": 0.9})):
            before = figures(process, port)
            for _ in range(arguments.answers):
                ask(port, arguments.length, **values)
            results[name] = overhead(before, figures(process, port))
            say(f"one client, {name}: {results[name]}")
        load, before = Load(port, arguments.length), figures(process, port)
        first, rest = min(arguments.seconds / 4, 15.0), arguments.seconds
        load.run(arguments.clients, first)
        results["memory_warm_mb"] = memory(process)
        load.run(arguments.clients, rest - first)
        while (now := figures(process, port))["queue_running"] or now["queue_waiting"]:
            time.sleep(0.1)
        results |= {"memory_after_mb": memory(process), "load": overhead(before, now)}
        results["requests"] = {f"{kind}: {status}": count for (kind, status), count in sorted(load.found.items())}
        ask(port, arguments.length)
    return {**results, "exit_code": process.returncode}


def main(arguments: list[str] | None = None) -> None:
    """Print the figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("--seconds", type=float, default=120.0, help="of the load")
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--queue", type=int, default=32)
    parser.add_argument("--length", type=int, default=48, help="tokens of an answer")
    parser.add_argument("--answers", type=int, default=8, help="of one client alone")
    parser.add_argument("--output", type=Path, help="JSON file")
    options = parser.parse_args(arguments)
    results = measure(options, lambda text: print(text, file=sys.stderr))
    text = json.dumps(results, indent=2)
    print(text)
    if options.output:
        options.output.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
