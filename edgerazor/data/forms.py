"""Dialogues of one form: the template is asked where the turns of one lie, and those of the others lie there, too.

The form of a dialogue is the roles and keys of its messages; one of single characters stands for all of it. What the
template writes around these is compared with what it writes around the messages of another. Only where it is the same,
letter by letter, are the turns of the other where those of the first are.
"""

import re
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import accumulate

from jinja2 import TemplateError, nodes

from edgerazor.data.boundaries import Span
from edgerazor.data.dialogue import Dialogue
from edgerazor.data.template import ChatTemplate
from edgerazor.data.turns import PRIVATE_USE, TurnFinder

_KEPT = 1024
_SEARCHES = frozenset(
    ("startswith", "endswith", "find", "index", "count", "split", "rsplit", "partition", "rpartition", "replace")
)


@dataclass(frozen=True)
class _Form:
    """What the template writes for a dialogue of single characters.

    Attributes:
        between: text before, between and behind the characters, one more than there are.
        shown: for each character which value it stands for.
        finder: of the turns.
    """

    between: list[str]
    shown: list[int]
    finder: TurnFinder
    _spans: dict[int, Span | None] = field(default_factory=dict)

    def span(self, index: int) -> Span | None:
        if index not in self._spans:
            self._spans[index] = self.finder.find(index)
        return self._spans[index]

    def lengths(self, values: Sequence[str], text: str) -> list[int] | None:
        """How many characters of `text` stand for each of these; None: around the values it is another text."""
        first, *others = self.between
        place, found = len(first), []
        for number, behind in zip(self.shown, others, strict=True):
            value = values[number]
            ways = (value, value.strip(), value.rstrip(), value.lstrip())
            written = next((way for way in ways if text.startswith(way + behind, place)), None)
            if written is None:
                return None
            found.append(len(written))
            place += len(written) + len(behind)
        return found if text.startswith(first) and place == len(text) else None


class Forms:
    """Finds turns of dialogues by their form.

    Args:
        template: that renders them.
        special_tokens: of the tokenizer.
    """

    def __init__(self, template: ChatTemplate, special_tokens: tuple[str, ...]):
        self._template, self._special_tokens = template, special_tokens
        self._known: dict[tuple[tuple[str, ...], ...], _Form | None] = {}
        self._words, parts = _looked_for(template.tree)
        self._parts = re.compile("|".join(map(re.escape, sorted({*parts, *special_tokens}))) or r"(?!)")

    def find(self, dialogue: Dialogue, text: str) -> list[Span] | None:
        """First character and one past the last of each learned turn; None: its form does not say.

        Args:
            text: what the template made of the dialogue.
        """
        values = self._values(dialogue)
        form = self._form(dialogue) if values else None
        if form is None or not values:
            return None
        lengths = form.lengths(values, text)
        if lengths is None:
            return None
        spans = [form.span(index) for index in dialogue.turns]
        places = [*accumulate((len(part) + 1 for part in form.between[:-1]), initial=-1)][1:]
        grown = [*accumulate((length - 1 for length in lengths), initial=0)]

        def moved(edge: int) -> int:
            return edge + grown[bisect_left(places, edge)]

        found = [(moved(span[0]), moved(span[1])) for span in spans if span is not None]
        return found if len(found) == len(spans) else None

    def _values(self, dialogue: Dialogue) -> list[str] | None:
        """All strings but roles; None where a template could treat one in its own way: an empty one, for example."""
        values = [value for message in dialogue.messages for key, value in message.items() if key != "role"]
        for value in values:
            if not isinstance(value, str) or not value.strip():
                return None
            if value in self._words or self._parts.search(value):
                return None
        return None if dialogue.tools else values

    def _form(self, dialogue: Dialogue) -> _Form | None:
        key = tuple((message["role"], *message) for message in dialogue.messages)
        if key not in self._known:
            if len(self._known) >= _KEPT:
                self._known.clear()
            self._known[key] = self._make(dialogue)
        return self._known[key]

    def _make(self, dialogue: Dialogue) -> _Form | None:
        letters = map(chr, PRIVATE_USE)
        messages = [
            {key: value if key == "role" else next(letters) for key, value in message.items()}
            for message in dialogue.messages
        ]
        try:
            text = self._template.render(messages, None)
        except (TemplateError, TypeError):
            return None
        letter = re.compile(f"[{chr(PRIVATE_USE[0])}-{chr(PRIVATE_USE[-1])}]")
        shown = [ord(found) - PRIVATE_USE[0] for found in letter.findall(text)]
        if len({*shown}) < len(shown):
            return None
        return _Form(letter.split(text), shown, TurnFinder(self._template, messages, None, text, self._special_tokens))


def _looked_for(tree: nodes.Template) -> tuple[set[str], set[str]]:
    """Words and other text that a template may compare a message with, or search it for."""
    calls = [call for call in tree.find_all(nodes.Call) if isinstance(call.node, nodes.Getattr)]
    places: list[nodes.Node] = [call for call in calls if call.node.attr in _SEARCHES]
    places += [*tree.find_all(nodes.Compare), *(used for used in tree.find_all(nodes.Filter) if used.name == "replace")]
    constants = [constant for place in places for constant in place.find_all(nodes.Const)]
    constants += [assign.node for assign in tree.find_all(nodes.Assign) if isinstance(assign.node, nodes.Const)]
    texts = {constant.value for constant in constants if isinstance(constant.value, str) and constant.value.strip()}
    words = {text for text in texts if re.fullmatch(r"[\w\s]+", text)}
    return words, texts - words
