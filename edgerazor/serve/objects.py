"""The objects of the interface, whole answers and chunks of streams, made of the events of a generation."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from edgerazor.serve.answers import ToolCall
from edgerazor.serve.generation import Begun, Finished, Written
from edgerazor.serve.logprobs import TokenChances, as_dict

Json = dict[str, Any]
DONE = b"data: [DONE]\n\n"
_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


def frame(content: Json) -> bytes:
    """A server-sent event."""
    return f"data: {_encode(content)}\n\n".encode()


@dataclass
class _Shape:
    """An answer under way: takes events, gives chunks of a stream, and the whole at the end.

    Attributes:
        id: of the answer.
        created: seconds since 1970.
        model: its name.
        wants_usage: chunks say how many tokens there were.
        new_id: makes the ids of calls.
    """

    id: str
    created: int
    model: str
    wants_usage: bool
    new_id: Callable[[str], str]
    _prompt_tokens: int = 0
    _new_tokens: int = 0

    def chunks(self, event: Any) -> Iterator[Json]:
        """What a stream says of an event."""
        raise NotImplementedError

    def _count(self, event: Any) -> None:
        if isinstance(event, Begun):
            self._prompt_tokens = event.prompt_tokens
        elif isinstance(event, Finished):
            self._new_tokens += event.new_tokens

    def last_chunk(self) -> Iterator[Json]:
        """The number of tokens, if it is wanted."""
        if self.wants_usage:
            yield {**self._head(self._chunk_kind), "choices": [], "usage": self.usage}

    @property
    def usage(self) -> Json:
        """Tokens of prompt and answer."""
        total = self._prompt_tokens + self._new_tokens
        return {
            "prompt_tokens": self._prompt_tokens,
            "completion_tokens": self._new_tokens,
            "total_tokens": total,
        }

    _chunk_kind = ""

    def _head(self, kind: str) -> Json:
        return {"id": self.id, "object": kind, "created": self.created, "model": self.model}

    def _chunk(self, choice: Json) -> Json:
        return {**self._head(self._chunk_kind), "choices": [choice], **({"usage": None} if self.wants_usage else {})}


@dataclass
class ChatShape(_Shape):
    """Of /v1/chat/completions."""

    _chunk_kind = "chat.completion.chunk"
    _content: list[str] = field(default_factory=list)
    _reasoning: list[str] = field(default_factory=list)
    _calls: list[Json] = field(default_factory=list)
    _reason: str = ""

    def chunks(self, event: Any) -> Iterator[Json]:
        """First the role, then pieces, then the reason of the end."""
        self._count(event)
        if isinstance(event, Begun):
            yield self._delta({"role": "assistant", "content": ""})
        elif isinstance(event, Finished):
            self._reason = event.reason
            yield self._delta({}, event.reason)
        elif isinstance(event, Written):
            yield self._delta(self._piece(event))

    def whole(self) -> Json:
        """The answer, not streamed."""
        content = "".join(self._content)
        message: Json = {"role": "assistant", "content": content if content or not self._calls else None}
        if self._reasoning:
            message["reasoning_content"] = "".join(self._reasoning)
        if self._calls:
            message["tool_calls"] = self._calls
        choice = {"index": 0, "message": message, "finish_reason": self._reason}
        return {**self._head("chat.completion"), "choices": [choice], "usage": self.usage}

    def _piece(self, event: Written) -> Json:
        piece = event.piece
        if piece.call is not None:
            call = self._call(piece.call)
            self._calls.append(call)
            return {"tool_calls": [{"index": len(self._calls) - 1, **call}]}
        if piece.reasoning:
            self._reasoning.append(piece.reasoning)
            return {"reasoning_content": piece.reasoning}
        self._content.append(piece.content)
        return {"content": piece.content}

    def _call(self, call: ToolCall) -> Json:
        function = {"name": call.name, "arguments": call.arguments}
        return {"id": self.new_id("call"), "type": "function", "function": function}

    def _delta(self, delta: Json, reason: str | None = None) -> Json:
        return self._chunk({"index": 0, "delta": delta, "finish_reason": reason})


@dataclass
class TextShape(_Shape):
    """Of /v1/completions."""

    _chunk_kind = "text_completion"
    _texts: dict[int, list[str]] = field(default_factory=dict)
    _chances: dict[int, list[TokenChances]] = field(default_factory=dict)
    _reasons: dict[int, str] = field(default_factory=dict)
    _offsets: dict[int, int] = field(default_factory=dict)

    def chunks(self, event: Any) -> Iterator[Json]:
        """Text with the chances of its tokens, then the reason of the end."""
        self._count(event)
        if isinstance(event, Finished):
            self._reasons[event.index] = event.reason
            yield self._chunk({"index": event.index, "text": "", "logprobs": None, "finish_reason": event.reason})
        elif isinstance(event, Written):
            self._texts.setdefault(event.index, []).append(event.text)
            self._chances.setdefault(event.index, []).extend(event.chances)
            offset = self._offsets.get(event.index, 0)
            self._offsets[event.index] = offset + sum(len(token.text) for token in event.chances)
            logprobs = as_dict(event.chances, offset) if event.chances else None
            choice = {"index": event.index, "text": event.text, "logprobs": logprobs, "finish_reason": None}
            yield self._chunk(choice)

    def whole(self) -> Json:
        """The continuations, not streamed."""
        choices = [self._choice(index) for index in sorted(self._reasons)]
        return {**self._head("text_completion"), "choices": choices, "usage": self.usage}

    def _choice(self, index: int) -> Json:
        chances = self._chances.get(index)
        return {
            "index": index,
            "text": "".join(self._texts.get(index, ())),
            "logprobs": as_dict(chances, 0) if chances else None,
            "finish_reason": self._reasons[index],
        }
