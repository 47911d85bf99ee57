"""Streams, byte by byte."""

import json
from collections.abc import Iterator

import pytest

from tests.serve.serving import Address, Parrot, serving

CHAT = {"messages": [{"role": "user", "content": "é!"}], "stream": True}
HEAD = '"object":"chat.completion.chunk","created":1700000000,"model":"parrot","choices":'


class Broken(Parrot):
    """Fails at the third step."""

    def compute(self, ids: list[int], *, every: bool):  # type: ignore[no-untyped-def,override]
        if len(self._answer) == 1:
            raise ValueError("the engine is broken")
        return super().compute(ids, every=every)


@pytest.fixture
def fresh() -> Iterator[Address]:
    with serving(Parrot()) as address:
        yield address


def frames(*contents: str) -> bytes:
    return "".join(f"data: {content}\n\n" for content in contents).encode()


def test_a_chat(fresh: Address) -> None:
    status, headers, body = fresh.send("/v1/chat/completions", CHAT)
    assert status == 200 and headers["content-type"] == "text/event-stream; charset=utf-8"
    head = '{"id":"chatcmpl-1",' + HEAD
    assert body == frames(
        head + '[{"index":0,"delta":{"role":"assistant","content":""},"finish_reason":null}]}',
        head + '[{"index":0,"delta":{"content":"é"},"finish_reason":null}]}',
        head + '[{"index":0,"delta":{"content":"!"},"finish_reason":null}]}',
        head + '[{"index":0,"delta":{},"finish_reason":"stop"}]}',
        "[DONE]",
    )


def test_a_chat_with_the_number_of_tokens(fresh: Address) -> None:
    _, _, body = fresh.send(
        "/v1/chat/completions", {**CHAT, "stream_options": {"include_usage": True}, "max_tokens": 2}
    )
    head = '{"id":"chatcmpl-1",' + HEAD
    assert body == frames(
        head + '[{"index":0,"delta":{"role":"assistant","content":""},"finish_reason":null}],"usage":null}',
        head + '[{"index":0,"delta":{"content":"é"},"finish_reason":null}],"usage":null}',
        head + '[{"index":0,"delta":{},"finish_reason":"length"}],"usage":null}',
        head + '[],"usage":{"prompt_tokens":20,"completion_tokens":2,"total_tokens":22}}',
        "[DONE]",
    )


def test_a_text(fresh: Address) -> None:
    _, _, body = fresh.send("/v1/completions", {"prompt": "a", "max_tokens": 1, "stream": True})
    head = '{"id":"cmpl-1","object":"text_completion","created":1700000000,"model":"parrot","choices":'
    assert body == frames(
        head + '[{"index":0,"text":"x","logprobs":null,"finish_reason":null}]}',
        head + '[{"index":0,"text":"","logprobs":null,"finish_reason":"length"}]}',
        "[DONE]",
    )


def test_whole_answers(fresh: Address) -> None:
    _, _, body = fresh.send("/v1/chat/completions", {**CHAT, "stream": False})
    assert body.decode() == (
        '{"id":"chatcmpl-1","object":"chat.completion","created":1700000000,"model":"parrot","choices":[{"index":0,'
        '"message":{"role":"assistant","content":"é!"},"finish_reason":"stop"}],'
        '"usage":{"prompt_tokens":20,"completion_tokens":3,"total_tokens":23}}'
    )


def test_an_engine_that_fails_ends_a_stream_with_an_error() -> None:
    with serving(Broken()) as address:
        _, _, body = address.send("/v1/chat/completions", CHAT)
        *_, last, done, rest = body.split(b"\n\n")
        error = {
            "message": "the answer failed: ValueError",
            "type": "server_error",
            "param": None,
            "code": "internal_error",
        }
        assert json.loads(last.removeprefix(b"data: ")) == {"error": error}
        assert (done, rest) == (b"data: [DONE]", b"")
        status, _, body = address.send("/v1/chat/completions", {**CHAT, "stream": False})
        assert status == 500 and json.loads(body) == {"error": error}
