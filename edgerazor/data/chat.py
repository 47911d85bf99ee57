"""Dialogues as text, with the stretches that the assistant wrote.

A chat template may trim, move or drop parts of a message, so what it did is observed, not guessed: the dialogue is
rendered twice, the second time with marks around the assistant's words. Marks that leave the rest of the text unchanged
say exactly where those words went.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase
from transformers.utils.chat_template_utils import render_jinja_template

from edgerazor.data.messages import Message
from edgerazor.errors import DataError

_GENERATION = re.compile(r"\{%-?\s*generation\s*-?%\}")
_OPEN_THOUGHT, _CLOSE_THOUGHT = "<think>", "</think>"
_REASONING_KEYS = ("reasoning_content", "reasoning")
_PRIVATE_USE = range(0xF0000, 0xFFFFE)

Span = tuple[int, int]


@dataclass(frozen=True)
class Rendered:
    """A dialogue as the tokenizer gets it; `spans` are the characters to learn, end-of-turn tokens included."""

    text: str
    spans: tuple[Span, ...]


@dataclass(frozen=True)
class ChatRenderer:
    """Renders dialogues with the tokenizer's chat template, or one content after the other where there is none."""

    tokenizer: PreTrainedTokenizerBase

    @cached_property
    def template(self) -> str | None:
        """The template, None where the tokenizer has none."""
        return self.tokenizer.get_chat_template() if self.tokenizer.chat_template else None

    def render(self, messages: list[Message], where: str) -> Rendered:
        """Text and spans of one dialogue.

        Raises:
            DataError: the template refuses the dialogue, or an assistant's turn cannot be found in what it made.
        """
        if self.template is None:
            return _concatenate(messages)
        if _GENERATION.search(self.template):
            text, spans = self._apply(messages, where, mask=True)
        else:
            text, _ = self._apply(messages, where)
            spans = self._marked_spans(messages, text, where)
        if not spans:
            raise DataError(f"{where}: the chat template leaves nothing of the assistant's turns")
        return Rendered(text, tuple(self._with_end_of_turn(text, span) for span in spans))

    def _apply(self, messages: list[Message], where: str, *, mask: bool = False) -> tuple[str, list[Span]]:
        try:
            texts, spans = render_jinja_template(
                [messages],
                chat_template=self.template,
                return_assistant_tokens_mask=mask,
                **self.tokenizer.special_tokens_map,
            )
        except (TemplateError, TypeError) as error:
            raise DataError(f"{where}: the chat template refuses this dialogue: {error}") from error
        return texts[0], [(start, end) for start, end in spans[0] if end > start] if mask else []

    def _marked_spans(self, messages: list[Message], text: str, where: str) -> list[Span]:
        written = text + "".join(value for message in messages for value in message.values() if isinstance(value, str))
        marks = _Marks(*_unused_characters(written, 3))
        marked, _ = self._apply([marks.put(message) for message in messages], where)
        spans = marks.spans(marked, text)
        turns = sum(message["role"] == "assistant" for message in messages)
        if spans is None or len(spans) != turns:
            raise DataError(
                f"{where}: the assistant's turns cannot be found in what the chat template makes of this dialogue; "
                "expected a template that keeps their words, or one that marks them with {% generation %}"
            )
        return spans

    @cached_property
    def _special_tokens(self) -> tuple[str, ...]:
        added = self.tokenizer.added_tokens_decoder.values()
        return tuple(sorted({token.content for token in added if token.special}, key=len, reverse=True))

    @cached_property
    def _end_of_turn(self) -> re.Pattern[str]:
        """A special token right behind the span, or the end-of-sequence token behind white space."""
        adjacent = map(re.escape, self._special_tokens)
        return re.compile("|".join([*adjacent, rf"\s+{re.escape(str(self.tokenizer.eos_token))}"]))

    def _with_end_of_turn(self, text: str, span: Span) -> Span:
        """The span and its closing token, which the model must learn to write."""
        start, end = span
        closed = text[start:end].rstrip().endswith(self._special_tokens)
        found = None if closed else self._end_of_turn.match(text, end)
        return (start, found.end()) if found else span


@dataclass(frozen=True)
class _Marks:
    """Three characters that occur nowhere else: where a thought begins, where an answer begins, where it ends."""

    thought: str
    answer: str
    end: str

    def put(self, message: Message) -> Message:
        """The assistant's message with marks around its words, inside the white space at both ends."""
        if message["role"] != "assistant":
            return message
        thinking, close, answer = message["content"].rpartition(_CLOSE_THOUGHT)
        before, opening, thought = thinking.rpartition(_OPEN_THOUGHT)
        words = answer.strip()
        lead = answer[: len(answer) - len(answer.lstrip())]
        trail = answer[len(lead) + len(words) :]
        content = f"{before}{opening}{self._mark(thought)}{close}{lead}{self.answer}{words}{self.end}{trail}"
        reasoning: dict[str, Any] = {
            key: self._mark(message[key]) for key in _REASONING_KEYS if isinstance(message.get(key), str)
        }
        return {**message, **reasoning, "content": content}

    def _mark(self, thought: str) -> str:
        words = thought.lstrip()
        return f"{thought[: len(thought) - len(words)]}{self.thought}{words}" if words else thought

    def spans(self, marked: str, text: str) -> list[Span] | None:
        """Where the marks lie in `text`; None if `marked` without its marks is another text."""
        spans, start, position = [], None, 0
        for part in re.split(f"([{self.thought}{self.answer}{self.end}])", marked):
            if part == self.thought:
                start = _opening_of_thought(text, position) if start is None else start
            elif part == self.answer:
                start = position if start is None else start
            elif part == self.end:
                if start is None:
                    return None
                spans.append((start, position))
                start = None
            else:
                if not text.startswith(part, position):
                    return None
                position += len(part)
        return spans if position == len(text) else None


def _opening_of_thought(text: str, position: int) -> int:
    """The model writes the tag that opens its own thought, so it belongs to the span; an empty thought has no mark."""
    before = text[:position].rstrip()
    return len(before) - len(_OPEN_THOUGHT) if before.endswith(_OPEN_THOUGHT) else position


def _unused_characters(text: str, count: int) -> Iterator[str]:
    used = set(text)
    free = (chr(code) for code in _PRIVATE_USE if chr(code) not in used)
    return (next(free) for _ in range(count))


def _concatenate(messages: list[Message]) -> Rendered:
    text, spans = "", []
    for message in messages:
        start, text = len(text), text + message["content"]
        if message["role"] == "assistant":
            spans.append((start, len(text)))
    return Rendered(text, tuple(spans))
