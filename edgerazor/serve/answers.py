"""What an assistant writes, taken apart while it arrives: its thought, its answer, its calls of tools."""

import json
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from typing import Any

from edgerazor.serve.stops import held_back

THOUGHT, THOUGHT_END = "<think>", "</think>"
CALL, CALL_END = "<tool_call>", "</tool_call>"


@dataclass(frozen=True)
class ToolCall:
    """A call of a function; `arguments` is JSON text."""

    name: str
    arguments: str


@dataclass(frozen=True)
class Piece:
    """A part of an answer; one of the three holds something."""

    content: str = ""
    reasoning: str = ""
    call: ToolCall | None = None


class AnswerReader:
    """Reads text piece by piece, wherever it is cut.

    Args:
        in_thought: the prompt ends inside a thought.
        tools: names of the functions that may be called; without any, no call is looked for.
    """

    def __init__(self, *, in_thought: bool = False, tools: Collection[str] = ()):
        self._tools = tools
        self._text = ""
        self._fresh = True  # nothing of this part was given out: white space at its beginning is left out
        self._state: Callable[[bool], Iterator[Piece]] = self._thought if in_thought else self._begin

    def add(self, text: str) -> Iterator[Piece]:
        """What is certain with this text."""
        self._text += text
        yield from self._run(last=False)

    def finish(self) -> Iterator[Piece]:
        """What was held back, at the end of the text."""
        yield from self._run(last=True)

    def _run(self, *, last: bool) -> Iterator[Piece]:
        while True:
            state = self._state
            yield from state(last)
            if self._state == state:
                return

    def _begin(self, last: bool) -> Iterator[Piece]:
        start = self._text.lstrip()
        if not last and (not start or (THOUGHT.startswith(start) and start != THOUGHT)):
            return
        if start.startswith(THOUGHT):
            self._text, self._state = start[len(THOUGHT) :], self._thought
        elif self._tools and start.startswith(("{", "[")):
            self._state = self._json
        else:
            self._fresh, self._state = False, self._content
        yield from ()

    def _thought(self, last: bool) -> Iterator[Piece]:
        end = self._text.find(THOUGHT_END)
        if end >= 0:
            thought, self._text = self._text[:end].rstrip(), self._text[end + len(THOUGHT_END) :].lstrip()
        else:
            thought = self._take(last, THOUGHT_END)
        if self._fresh:
            thought = thought.lstrip()
        if thought:
            self._fresh = False
            yield Piece(reasoning=thought)
        if end >= 0:
            self._fresh, self._state = True, self._after_thought

    def _after_thought(self, last: bool) -> Iterator[Piece]:
        self._text = self._text.lstrip()
        if self._text or last:
            self._state = self._json if self._tools and self._text.startswith(("{", "[")) else self._content
        yield from ()

    def _content(self, last: bool) -> Iterator[Piece]:
        if not self._tools:
            content, self._text = self._text, ""
        elif (begin := self._text.find(CALL)) >= 0:
            content, self._text = self._text[:begin].rstrip(), self._text[begin + len(CALL) :]
            self._state = self._call
        else:
            content = self._take(last, CALL)
        if content:
            self._fresh = False
            yield Piece(content=content)

    def _call(self, last: bool) -> Iterator[Piece]:
        end = self._text.find(CALL_END)
        if end < 0 and not last:
            return
        text, self._text = (self._text, "") if end < 0 else (self._text[:end], self._text[end + len(CALL_END) :])
        calls = list(_calls(text, None))
        if calls:
            yield from (Piece(call=call) for call in calls)
        else:
            yield Piece(content=f"{CALL}{text}{CALL_END if end >= 0 else ''}")
        self._state = self._content

    def _json(self, last: bool) -> Iterator[Piece]:
        """The template of Llama 3.1 lets a call be the whole answer."""
        if not last:
            return
        calls = list(_calls(self._text, self._tools))
        if calls:
            yield from (Piece(call=call) for call in calls)
        elif self._text:
            yield Piece(content=self._text)
        self._text = ""

    def _take(self, last: bool, marker: str) -> str:
        """The text up to where a marker may begin, and up to white space that may stand before it."""
        kept = 0 if last else held_back(self._text, (marker,))
        certain = self._text[: len(self._text) - kept]
        if not last:
            certain = certain.rstrip()
        self._text = self._text[len(certain) :]
        return certain


def _calls(text: str, names: Collection[str] | None) -> Iterator[ToolCall]:
    """Calls that a text consists of: JSON objects, a list of them, or semicolons between them; else none.

    Args:
        text: of the model.
        names: that a call may have; None is any.
    """
    try:
        values = _values(text.strip())
    except (ValueError, RecursionError):
        return
    calls = [_tool_call(value) for value in values]
    known = [call for call in calls if call is not None and (names is None or call.name in names)]
    if len(known) == len(values):
        yield from known


def _values(text: str) -> list[Any]:
    decoder, values = json.JSONDecoder(), list[Any]()
    while text:
        value, end = decoder.raw_decode(text)
        values += value if isinstance(value, list) else [value]
        text = text[end:].lstrip().removeprefix(";").lstrip()
    return values


def _tool_call(value: Any) -> ToolCall | None:
    if not isinstance(value, dict) or not isinstance(value.get("name"), str):
        return None
    arguments = value.get("arguments", value.get("parameters", {}))
    if isinstance(arguments, str):
        return ToolCall(value["name"], arguments)
    return ToolCall(value["name"], json.dumps(arguments, ensure_ascii=False))
