"""Where a turn of the assistant lies in what a chat template makes of a dialogue.

The template is asked, not read: what it makes of the messages before a turn, with the words that open an answer, ends
where the turn begins, and what it makes of the messages up to the turn ends where the turn does. A template may write a
message otherwise when others follow (thoughts of earlier turns are dropped, for example). Then the turn is exchanged
for one of a single character that occurs nowhere else, and lies where the two texts differ.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from jinja2 import TemplateError

from edgerazor.data.boundaries import Span
from edgerazor.data.messages import Message
from edgerazor.data.template import ChatTemplate, Tools

# Variables by which templates are told that no thought is wanted; the prompt then ends behind an empty one.
_THINKING = ("enable_thinking", "thinking")
_PROMPT = "add_generation_prompt"
PRIVATE_USE = range(0xF0000, 0xFFFFE)


@dataclass(frozen=True)
class TurnFinder:
    """Finds turns of one dialogue.

    Attributes:
        template: that rendered it.
        messages, tools: the dialogue.
        text: what the template made of it.
        special_tokens: of the tokenizer.
    """

    template: ChatTemplate
    messages: Sequence[Message]
    tools: Tools
    text: str
    special_tokens: tuple[str, ...]
    _ends: dict[int, int | None] = field(default_factory=dict, init=False, repr=False, compare=False)

    def find(self, index: int) -> Span | None:
        """First character and one past the last of the assistant's turn, its end-of-turn token included if it is one
        of the special tokens; None: the template does not show it.
        """
        start = self._prompt_end(index)
        if start is None:
            start = self._header_end(index)
        end = len(self.text) if index + 1 == len(self.messages) else self._prefix_end(index + 1)
        if start is not None and (end is None or end < start):
            exchanged = self._exchanged(index, self.tools)
            end = len(self.text) - _common(self.text[::-1], exchanged[::-1]) if exchanged else -1
            return (start, self._whole_token(max(start, end))) if end >= 0 else None
        if start is None or end is None:
            return None
        turn = self.text[start:end].rstrip()
        return start, start + len(turn) if turn.endswith(self.special_tokens) else end

    def _prompt_end(self, index: int) -> int | None:
        """Length of the longest prompt that the template writes for this turn and that the text begins with."""
        if not self.template.mentions(_PROMPT):
            return None
        off = [{name: False} for name in _THINKING if self.template.mentions(name)]
        for before, tools in self._choices(index):
            prompts = (self._render(before, tools, prompt=True, **more) for more in ({}, *off))
            found = [len(prompt) for prompt in prompts if prompt is not None and self.text.startswith(prompt)]
            if found and not (self._follows_answer(index) and max(found) == self._prefix_end(index)):
                return max(found)
        return None

    def _follows_answer(self, index: int) -> bool:
        """Some templates open no answer behind another one."""
        return index > 0 and self.messages[index - 1]["role"] == "assistant"

    def _prefix_end(self, count: int) -> int | None:
        """Length of what the template makes of the first `count` messages, if the text begins with it."""
        if count not in self._ends:
            self._ends[count] = self._find_prefix_end(count)
        return self._ends[count]

    def _find_prefix_end(self, count: int) -> int | None:
        prefixes = (self._render(messages, tools) for messages, tools in self._choices(count))
        return next((len(prefix) for prefix in prefixes if prefix is not None and self.text.startswith(prefix)), None)

    def _choices(self, count: int) -> Iterator[tuple[Sequence[Message], Tools]]:
        """The first messages as they may stand in the text: a template that writes the tools or the system message
        beside the last question shows neither in what comes earlier.
        """
        messages = self.messages[:count]
        talk = [message for message in messages if message["role"] != "system"]
        for tools in self._tool_choices:
            yield messages, tools
            if 0 < len(talk) < count:
                yield talk, tools

    @property
    def _tool_choices(self) -> tuple[Tools, ...]:
        return (self.tools, None) if self.tools else (None,)

    def _header_end(self, index: int) -> int | None:
        """Where an exchanged turn begins to differ; white space alone behind the messages before is no header."""
        exchanged = [self._exchanged(index, self.tools)]
        if exchanged == [None]:
            exchanged = [self._exchanged(index, tools, alone=True) for tools in self._tool_choices]
        starts = [_common(self.text, text) for text in exchanged if text is not None]
        if not starts:
            return None
        before = self._prefix_end(index)
        return before if before is not None and not self.text[before : max(starts)].strip() else max(starts)

    def _exchanged(self, index: int, tools: Tools, *, alone: bool = False) -> str | None:
        """The text with another turn at this place, or (alone) with that as its last one; None: it makes no difference,
        or the template refuses it.
        """
        used = set(self.text)
        stand_in = {"role": "assistant", "content": next(chr(code) for code in PRIVATE_USE if chr(code) not in used)}
        after = () if alone else self.messages[index + 1 :]
        text = self._render([*self.messages[:index], stand_in, *after], tools)
        return text if text is not None and stand_in["content"] in text else None

    def _render(self, messages: Sequence[Message], tools: Tools, *, prompt: bool = False, **more: bool) -> str | None:
        try:
            return self.template.render(messages, tools, prompt=prompt, **more)
        except (TemplateError, TypeError):
            return None

    def _whole_token(self, end: int) -> int:
        """The texts may part inside a special token, where turns of two kinds end in two of them."""
        for token in self.special_tokens:
            begin = self.text.rfind(token, max(0, end - len(token) + 1), end + len(token) - 1)
            if begin != -1 and begin < end < begin + len(token):
                return begin + len(token)
        return end


def _common(first: str, second: str) -> int:
    """How many characters both begin with."""
    low, high = 0, min(len(first), len(second))
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if first[:middle] == second[:middle] else (low, middle - 1)
    return low
