"""Dialogues to answer, a tiny teacher that chats, and a server that does as it is told."""

import json
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import Qwen3ForCausalLM

from edgerazor.data.bad_rows import BadRows
from edgerazor.models.load import Models
from edgerazor.schemas.data import Source
from edgerazor.schemas.synthesis import SynthesisSettings
from edgerazor.synthesize.drafts import Prompt
from edgerazor.synthesize.prompts import PromptReader
from tests.runs import save_model, tokenizer

TEMPLATE = (
    "{% for m in messages %}<{{ m.role }}>{{ m.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% if enable_thinking is false %}(quiet){% endif %}{% endif %}"
)


def settings(**values: Any) -> SynthesisSettings:
    """Settings of a local teacher that writes twelve tokens."""
    return SynthesisSettings(**{"writer": "local", "model": "teacher", "max_new_tokens": 12, **values})


def user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def assistant(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


def dialogue(number: int, turns: int = 1) -> dict[str, Any]:
    """Questions of different lengths, with answers that are to be replaced."""
    messages = []
    for turn in range(turns):
        messages += [
            user(f"question {number}.{turn}" + " and more" * (number % 4)),
            assistant(f"human {number}.{turn}"),
        ]
    return {"messages": messages}


def dialogues(count: int) -> list[dict[str, Any]]:
    """Dialogues of one, two and three turns."""
    return [dialogue(number, 1 + number % 3) for number in range(count)]


def write_lines(path: Path, rows: list[Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def read_lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def questions(row: dict[str, Any]) -> list[str]:
    """What was asked, whoever answered."""
    return [message["content"] for message in row["messages"] if message["role"] != "assistant"]


def prompts_of(path: Path, chosen: SynthesisSettings) -> list[Prompt]:
    """The prompts of a file, none refused."""
    reader = PromptReader([Source(path=str(path))], chosen, BadRows())
    return list(reader.prompts(reader.survey(())))


def save_teacher(folder: Path, template: str | None = TEMPLATE, **values: Any) -> Path:
    """A random Qwen3 of two layers in float32 range, with 512 positions and a chat template."""
    save_model(folder, **{"max_position_embeddings": 512, **values})
    words = tokenizer()
    words.chat_template = template
    words.save_pretrained(folder)
    return folder


TALKER_TEMPLATE = (
    "{% for m in messages %}<{{ m.role }}>{{ m.content }}<|endoftext|>{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)


def save_talker(folder: Path, **values: Any) -> Path:
    """A random model that writes ASCII alone, and ends a turn at every 16th token of its vocabulary.

    The first coordinate of its hidden states is the same everywhere, and the head turns it against other characters.
    """
    save_teacher(folder, template=TALKER_TEMPLATE, tie_word_embeddings=False, **values)
    words = tokenizer()
    model: Any = Qwen3ForCausalLM.from_pretrained(folder, dtype=torch.bfloat16)
    ascii_only = torch.tensor([words.decode([token]).isascii() for token in range(len(words))])
    with torch.no_grad():
        model.model.embed_tokens.weight[:, 0] = 2.0
        for layer in model.model.layers:
            layer.self_attn.o_proj.weight[0] = layer.mlp.down_proj.weight[0] = 0.0
        model.lm_head.weight[:, 0] = torch.where(ascii_only, 0.0, -20.0)
    model.generation_config.eos_token_id = [*range(0, len(words), 16)]
    model.save_pretrained(folder)
    return folder


def compute_in_float64(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have local teachers compute in float64.

    A matrix product sums in another order for another number of rows. In float32 that turns one sampled token in some
    hundred thousand; here the claim is that nothing else of a batch does.
    """
    load = Models.load_teacher
    monkeypatch.setattr(Models, "load_teacher", lambda self, **options: load(self, **options).double())


def completion(text: str | None, reason: str = "stop") -> dict[str, Any]:
    """What the API promises, as far as a client needs it."""
    return {"choices": [{"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": reason}]}


def echo(body: dict[str, Any]) -> dict[str, Any]:
    """An answer that depends on all that a sampled answer may depend on."""
    asked = [message["content"] for message in body["messages"]]
    return completion(f"{len(asked)} {asked[-1]} {body['seed']}")


class ReplyError(Exception):
    """Raised by a script to answer with another status, text or headers."""

    def __init__(self, status: int, text: str = "", **headers: str):
        super().__init__(status)
        self.status, self.text, self.headers = status, text, headers


class _QuietServer(ThreadingHTTPServer):
    """A client that hangs up is no news: what is printed here would be read as said by the program under test."""

    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


class ScriptedServer:
    """An HTTP server: `script(body)` answers POST /v1/chat/completions, `models` are listed.

    Attributes:
        url: with /v1.
        bodies: all that was asked, in the order of arrival.
        headers: of the last request.
        most: requests under way at one time.
    """

    def __init__(self, script: Callable[[dict[str, Any]], Any], models: tuple[str, ...] | None = ("tiny",)):
        self.script, self.models = script, models
        self.bodies: list[dict[str, Any]] = []
        self.headers: dict[str, str] = {}
        self.most = self._now = 0
        self._lock = threading.Lock()
        self._server = _QuietServer(("127.0.0.1", 0), self._handler())
        self.url = f"http://127.0.0.1:{self._server.server_port}/v1"

    @contextmanager
    def running(self) -> Iterator["ScriptedServer"]:
        thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        try:
            yield self
        finally:
            self._server.shutdown()
            self._server.server_close()
            thread.join()

    def answer(self, body: dict[str, Any]) -> Any:
        with self._lock:
            self.bodies.append(body)
            self._now += 1
            self.most = max(self.most, self._now)
        try:
            return self.script(body)
        finally:
            with self._lock:
                self._now -= 1

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                server.headers = dict(self.headers)
                if self.path != "/v1/models" or server.models is None:
                    self.send(404, '{"detail": "Not Found"}')
                    return
                self.send(200, json.dumps({"object": "list", "data": [{"id": name} for name in server.models]}))

            def do_POST(self) -> None:
                server.headers = dict(self.headers)
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                if self.path != "/v1/chat/completions":
                    self.send(404, '{"detail": "Not Found"}')
                    return
                try:
                    self.send(200, json.dumps(server.answer(body)))
                except ConnectionError:
                    self.close_connection = True  # the script hangs up
                except ReplyError as reply:
                    self.send(reply.status, reply.text, reply.headers)

            def send(self, status: int, text: str, headers: dict[str, str] | None = None) -> None:
                data = text.encode()
                self.send_response(status)
                for name, value in {"Content_Length": str(len(data)), **(headers or {})}.items():
                    self.send_header(name.replace("_", "-"), value)
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *arguments: Any) -> None:
                """Say nothing."""

        return Handler
