"""A server in a thread on a free port, and an engine that says what it is told to."""

import http.client
import itertools
import json
import re
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgerazor.core.contracts import TokenizerRuntime
from edgerazor.serve.models import ModelTable, ServedModel
from edgerazor.serve.server import Server, listen
from edgerazor.serve.settings import ServeSettings
from tests.runs import tokenizer

TEMPLATE = (
    "{% if tools %}<tools>{{ tools | tojson }}{% endif %}"
    "{% for message in messages %}<{{ message.role }}>{{ message.content }}{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% if thinking %}<think>\n{% endif %}{% endif %}"
)
_ASKED = re.compile(r"<user>((?:(?!<user>).)*)<assistant>(?:<think>\n)?", re.DOTALL)
CLOCK = 1_700_000_000.5


class Parrot(TokenizerRuntime):
    """Answers a user's message with the same words, and goes on from any other text with `x` without end.

    Args:
        before: called before the logits of a step, in the thread of the model.
    """

    def __init__(self, before: Callable[[], None] = lambda: None):
        self.name, self.engine, self.recipe = "parrot", "Parrot 1", {}
        self._words = tokenizer()
        self._words.chat_template = TEMPLATE
        self.vocabulary_size, self.context_length = len(self._words), 5000
        self.stop_ids = frozenset({self._words.eos_token_id})
        self.before, self._before, self._answer = before, 0, list[int]()

    @property
    def tokenizer(self) -> Any:
        return self._words

    def restart(self) -> None:
        super().restart()
        self._held, self._answer = list[int](), []

    def compute(self, ids: Sequence[int], *, every: bool) -> NDArray[np.float32]:
        self.before()
        if not self.position:
            self._held = []
        self._held += ids
        if len(ids) > 1 or not self.position:
            asked = _ASKED.findall(self._words.decode(self._held))
            script = self.encode_rendered(asked[-1]) if asked else self.encode_rendered("x") * 4000
            self._answer = [*script, *self.stop_ids]
        token = self._answer.pop(0) if self._answer else next(iter(self.stop_ids))
        logits = np.zeros((len(ids) if every else 1, self.vocabulary_size), dtype=np.float32)
        logits[-1, token] = 50.0
        return logits

    def close(self) -> None:
        """Nothing to free."""


@dataclass
class Address:
    """Where a server of a test listens; `models` are what it serves."""

    port: int
    models: list[ServedModel]
    server: Server

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def send(self, path: str, body: Any = None, **headers: str) -> tuple[int, dict[str, str], bytes]:
        """Status, headers and body; a body that is no bytes is sent as JSON."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        content = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        connection.request("GET" if body is None else "POST", path, content, headers)
        answer = connection.getresponse()
        found = answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()
        connection.close()
        return found

    def ask(self, text: str, **values: Any) -> Any:
        """The JSON of a chat with one message."""
        _, _, body = self.send("/v1/chat/completions", {"messages": [{"role": "user", "content": text}], **values})
        return json.loads(body)

    def wait_for(self, condition: Callable[[], bool]) -> None:
        """Until something is so; the limit is reached by a fault alone."""
        clock = threading.Event()
        for _ in range(3000):
            if condition():
                return
            clock.wait(0.01)
        raise AssertionError("it never came")


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])


@contextmanager
def serving(*runtimes: TokenizerRuntime, names: Sequence[str] = ("parrot",), **settings: Any) -> Iterator[Address]:
    """Serve on a free port, with ids and a clock that are known beforehand."""
    known = ServeSettings(**{"port": 0, "grace_seconds": 0.2, **settings})
    models = [
        ServedModel(name, runtime, queue=known.queue, created=1) for name, runtime in zip(names, runtimes, strict=True)
    ]
    counter = itertools.count(1)
    with listen(known) as taken:
        server = Server(ModelTable(models), known, new_id=lambda kind: f"{kind}-{next(counter)}", clock=lambda: CLOCK)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [taken]})
        thread.start()
        try:
            address = Address(taken.getsockname()[1], models, server)
            address.wait_for(lambda: server.started)
            yield address
        finally:
            server.should_exit = True
            thread.join()
            for model in models:
                model.close()
