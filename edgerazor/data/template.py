"""A tokenizer's chat template, with what a recipe says to it."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, time
from functools import cached_property
from types import SimpleNamespace
from typing import Any

from jinja2 import nodes
from transformers import PreTrainedTokenizerBase
from transformers.utils.chat_template_utils import _compile_jinja_template, _render_with_assistant_indices

from edgerazor.core.contracts import Runtime, TokenizerRuntime
from edgerazor.data.boundaries import Span
from edgerazor.data.messages import Message
from edgerazor.errors import DataError

_GENERATION = re.compile(r"\{%-?\s*generation\s*-?%\}")
_CLOCK = "strftime_now"

Tools = Sequence[dict[str, Any]] | None


@dataclass(frozen=True)
class ChatTemplate:
    """Renders messages as transformers does, on a day that does not change.

    Attributes:
        tokenizer: whose template it is.
        arguments: further variables of the template (`data.chat_template_kwargs`).
        today: what the template is told if it asks for the date; None: the clock of this machine.
    """

    tokenizer: PreTrainedTokenizerBase
    arguments: Mapping[str, Any] = field(default_factory=dict)
    today: date | None = None

    @classmethod
    def of(cls, runtime: Runtime) -> "ChatTemplate":
        """The template of a loaded model, whose engine may have no tokenizer of transformers."""
        if isinstance(runtime, TokenizerRuntime):
            return cls(runtime.tokenizer)
        template = runtime.chat_template
        tokenizer: Any = SimpleNamespace(
            name_or_path=runtime.name,
            chat_template=template,
            special_tokens_map=dict(runtime.special_tokens),
            get_chat_template=lambda tools=None: template,
        )
        return cls(tokenizer)

    def __bool__(self) -> bool:
        return bool(self.tokenizer.chat_template)

    @cached_property
    def _texts(self) -> dict[bool, str]:
        """Jinja text, without and with tools: some tokenizers have a template for each."""
        some: Any = [{}]
        try:
            return {
                False: str(self.tokenizer.get_chat_template()),
                True: str(self.tokenizer.get_chat_template(tools=some)),
            }
        except ValueError as error:  # several templates, and none of them is the default
            raise DataError(f"tokenizer {self.tokenizer.name_or_path}: chat template: {error}") from error

    def mentions(self, word: str) -> bool:
        """Whether the template reads a variable or key of this name."""
        return bool(self) and any(re.search(rf"\b{re.escape(word)}\b", text) for text in self._texts.values())

    def __contains__(self, key: object) -> bool:
        return isinstance(key, str) and self.mentions(key)

    @property
    def reads_the_clock(self) -> bool:
        """Whether what it makes depends on the day."""
        return self.mentions(_CLOCK)

    def marks_answers(self, tools: Tools) -> bool:
        """Whether the template itself says what the assistant writes."""
        return bool(_GENERATION.search(self._texts[bool(tools)]))

    @property
    def tree(self) -> nodes.Template:
        """What jinja reads in the template for dialogues without tools."""
        parsed: nodes.Template = self._compiled(None).environment.parse(self._texts[False])
        return parsed

    def render(self, messages: Sequence[Message], tools: Tools, *, prompt: bool = False, **more: Any) -> str:
        """Text of the messages; with `prompt` up to where the assistant's next turn begins.

        Raises:
            jinja2.TemplateError, TypeError: the template refuses them.
        """
        context = self._context(tools, more)
        return str(self._compiled(tools).render(messages=list(messages), add_generation_prompt=prompt, **context))

    def render_marked(self, messages: Sequence[Message], tools: Tools) -> tuple[str, list[Span]]:
        """Text, and the characters inside each `{% generation %}` block, empty ones included."""
        text, spans = _render_with_assistant_indices(
            compiled_template=self._compiled(tools),
            messages=list(messages),
            add_generation_prompt=False,
            documents=None,
            **self._context(tools, {}),
        )
        return text, spans

    def _compiled(self, tools: Tools) -> Any:
        return _compile_jinja_template(self._texts[bool(tools)])

    def _context(self, tools: Tools, more: Mapping[str, Any]) -> dict[str, Any]:
        clock = {}
        if self.today is not None:
            midnight = datetime.combine(self.today, time())
            clock = {_CLOCK: midnight.strftime}
        tools = list(tools) if tools else None
        return {**self.tokenizer.special_tokens_map, **clock, **self.arguments, **more, "tools": tools}
