"""Whatever a client sends, it is told what was wrong, and the server goes on."""

import json
import os
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgerazor.serve.requests import ChatRequest, CompletionRequest
from tests.serve.serving import Address

VALID: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {
        "model": "parrot",
        "messages": [{"role": "user", "content": "a"}],
        "max_tokens": 4,
        "tools": [{"type": "function", "function": {"name": "f", "parameters": {}}}],
    },
    "/v1/completions": {"model": "parrot", "prompt": "a", "max_tokens": 4},
}
KEYS = sorted(ChatRequest.model_fields.keys() | CompletionRequest.model_fields.keys())
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=12)
    | st.sampled_from(["user", "assistant", "tool", "tiny", "text", "function", 10**400, -1, 2**63]),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.text(max_size=6)
            | st.sampled_from(["role", "content", "type", "text", "tool_calls", "function", "name", "arguments"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=8,
)
COUNT = int(os.environ.get("EDGERAZOR_MALFORMED_REQUESTS", "50"))


def check(server: Address, path: str, body: bytes) -> int:
    """The status: what was wrong with the request is told as an object, and is never the server's fault."""
    status, _, answer = server.send(path, body)
    assert status == 200 or 400 <= status < 500, (status, answer)
    if status != 200:
        assert set(json.loads(answer)["error"]) == {"message", "type", "param", "code"}
    return status


@settings(max_examples=COUNT)
@given(
    path=st.sampled_from(sorted(VALID)), changes=st.dictionaries(st.sampled_from(KEYS), VALUES, min_size=1, max_size=3)
)
def test_other_values(server: Address, path: str, changes: dict[str, Any]) -> None:
    check(server, path, json.dumps({**VALID[path], **changes}).encode())


@settings(max_examples=COUNT)
@given(message=VALUES, key=st.sampled_from(["messages", "tools", "message"]))
def test_other_messages_and_tools(server: Address, message: Any, key: str) -> None:
    path = "/v1/chat/completions"
    first = VALID[path]["messages"][0]
    value = [{**first, **message}] if key == "message" and isinstance(message, dict) else [message, message]
    check(server, path, json.dumps({**VALID[path], "messages" if key == "message" else key: value}).encode())


@settings(max_examples=COUNT)
@given(path=st.sampled_from(sorted(VALID)), body=st.binary(max_size=40) | VALUES.map(lambda v: json.dumps(v).encode()))
def test_other_bodies(server: Address, path: str, body: bytes) -> None:
    if isinstance(content := _json(body), dict) and content.keys() & {"messages", "prompt"}:
        return
    assert check(server, path, body) >= 400


def _json(body: bytes) -> Any:
    try:
        return json.loads(body)
    except ValueError:
        return None


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"[" * 100_000,
        b'{"model": "parrot", "messages": ' + b"[" * 50_000,
        b'{"prompt": "\\ud800"}',
        b'{"prompt": "a", "temperature": NaN}',
        b'{"prompt": "a", "temperature": 1e999}',
        b'{"prompt": "a", "seed": ' + b"9" * 5000 + b"}",
        b'{"prompt": [1, 100000]}',
        b'{"prompt": [[1], [-1]]}',
        b'{"prompt": []}',
        b'{"prompt": ""}',
        b'{"prompt": "a", "n": 2}',
        b'{"prompt": "a", "stop": [""]}',
        b"\xff\xfe",
    ],
)
def test_the_odd_ones(server: Address, body: bytes) -> None:
    content = body.replace(b'{"prompt', b'{"model": "tiny", "prompt')
    assert check(server, "/v1/completions", content) == 400
    assert check(server, "/v1/chat/completions", content) == 400
    assert server.ask("still there", model="parrot")["choices"][0]["message"]["content"] == "still there"
