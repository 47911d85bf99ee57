"""Dialogues as text, with the stretches that the assistant wrote."""

import re
from dataclasses import dataclass
from functools import cached_property

from jinja2 import TemplateError

from edgerazor.data.boundaries import Span
from edgerazor.data.dialogue import Dialogue
from edgerazor.data.forms import Forms
from edgerazor.data.template import ChatTemplate
from edgerazor.data.turns import TurnFinder
from edgerazor.errors import DataError


@dataclass(frozen=True)
class Rendered:
    """A dialogue as the tokenizer gets it; `spans` are the characters to learn, end-of-turn tokens included."""

    text: str
    spans: tuple[Span, ...]


@dataclass(frozen=True)
class ChatRenderer:
    """Renders dialogues with a chat template, or one content after the other where the tokenizer has none."""

    template: ChatTemplate

    def render(self, dialogue: Dialogue, where: str) -> Rendered:
        """Text and spans of one dialogue; the turns that are not learned have no span.

        Raises:
            DataError: the template refuses the dialogue, or does not show a turn of the assistant.
        """
        if not self.template:
            return _concatenate(dialogue)
        try:
            if self.template.marks_answers(dialogue.tools):
                text, spans = self._marked_by_template(dialogue, where)
            else:
                text = self.template.render(dialogue.messages, dialogue.tools)
                spans = self._found(dialogue, text, where)
        except (TemplateError, TypeError) as error:
            raise DataError(f"{where}: the chat template refuses this dialogue: {error}") from error
        return Rendered(text, tuple(self._with_end_of_turn(text, span) for span in spans))

    def _found(self, dialogue: Dialogue, text: str, where: str) -> list[Span]:
        if (known := self._forms.find(dialogue, text)) is not None:
            return known
        finder = TurnFinder(self.template, dialogue.messages, dialogue.tools, text, self._special_tokens)
        spans = []
        for index in dialogue.turns:
            span = finder.find(index)
            if span is None:
                raise DataError(
                    f"{where}: message {index + 1}, a turn of the assistant, cannot be found in what the chat template "
                    "makes of this dialogue; expected a template that writes all turns, or one that marks them with "
                    "{% generation %}"
                )
            spans.append(span)
        return spans

    def _marked_by_template(self, dialogue: Dialogue, where: str) -> tuple[str, list[Span]]:
        """A turn has the blocks that are new in what the template makes of the messages up to it."""
        text, blocks = self.template.render_marked(dialogue.messages, dialogue.tools)
        assistants = [index for index, message in enumerate(dialogue.messages) if message["role"] == "assistant"]
        if len(dialogue.turns) < len(assistants):
            counts = {
                end: len(self.template.render_marked(dialogue.messages[:end], dialogue.tools)[1]) if end else 0
                for index in dialogue.turns
                for end in (index, index + 1)
            }
            blocks = [block for index in dialogue.turns for block in blocks[counts[index] : counts[index + 1]]]
        spans = [(start, end) for start, end in blocks if end > start]
        if dialogue.turns and not spans:
            raise DataError(f"{where}: the chat template leaves nothing of the assistant's turns")
        return text, spans

    @cached_property
    def _forms(self) -> Forms:
        return Forms(self.template, self._special_tokens)

    @cached_property
    def _special_tokens(self) -> tuple[str, ...]:
        added = self.template.tokenizer.added_tokens_decoder.values()
        return tuple(sorted({token.content for token in added if token.special}, key=len, reverse=True))

    @cached_property
    def _end_of_turn(self) -> re.Pattern[str]:
        """A special token right behind the span, or the end-of-sequence token behind white space."""
        adjacent = map(re.escape, self._special_tokens)
        return re.compile("|".join([*adjacent, rf"\s+{re.escape(str(self.template.tokenizer.eos_token))}"]))

    def _with_end_of_turn(self, text: str, span: Span) -> Span:
        """The span and its closing token, which the model must learn to write."""
        start, end = span
        closed = text[start:end].rstrip().endswith(self._special_tokens)
        found = None if closed else self._end_of_turn.match(text, end)
        return (start, found.end()) if found else span


def _concatenate(dialogue: Dialogue) -> Rendered:
    text, spans = "", []
    for message, learned in zip(dialogue.messages, dialogue.learned, strict=True):
        start, text = len(text), text + message["content"]
        if learned:
            spans.append((start, len(text)))
    return Rendered(text, tuple(spans))
