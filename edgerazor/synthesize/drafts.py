"""A dialogue while the teacher writes it, and what every kind of writer does."""

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

from edgerazor.data.messages import Message
from edgerazor.errors import SynthesisError

CUT = "length"
_OPEN_THOUGHT, _CLOSE_THOUGHT = "<think>", "</think>"


class RefusalError(SynthesisError):
    """This dialogue cannot be answered; others may be."""


@dataclass(frozen=True)
class Prompt:
    """A dialogue without the assistant's words.

    Attributes:
        id: 64 hexadecimal digits, of the messages and the settings.
        messages: as the file has them; the assistant's are `{"role": "assistant"}`, to be filled in.
        where: file and row, for messages.
        tools: descriptions of functions that the assistant may call; None: none.
    """

    id: str
    messages: tuple[Message, ...]
    where: str
    tools: tuple[dict[str, Any], ...] | None = None

    def seed(self, turn: int) -> int:
        """Seed for sampling a turn (counted from 0), below 2^31; it depends on nothing but prompt and settings."""
        return int.from_bytes(hashlib.sha256(f"{self.id}:{turn}".encode()).digest()[:4], "big") >> 1


@dataclass(frozen=True)
class Answer:
    """One turn; `finish_reason` is 'stop' where the teacher ended it, 'length' where the limit did."""

    text: str
    finish_reason: str


@dataclass(frozen=True)
class FinishedDialogue:
    """A dialogue with every turn of the assistant written."""

    prompt: Prompt
    messages: list[Message]
    finish_reasons: list[str]


@dataclass(frozen=True)
class Refusal:
    """A dialogue that the teacher cannot answer, and why."""

    prompt: Prompt
    reason: str


class Writer(Protocol):
    """A teacher that answers dialogues. One object is used for one call of `write`."""

    def write(self, prompts: Iterable[Prompt]) -> Iterator[FinishedDialogue | Refusal]:
        """Yield each dialogue as soon as it is finished, in any order.

        Raises:
            SynthesisError: the teacher cannot go on; what was yielded before is sound.
        """
        ...

    def stop(self) -> None:
        """Make `write` end soon, without the dialogues that are under way; safe in a signal handler."""
        ...


class Draft:
    """A prompt and the answers so far: every turn is asked with the earlier answers as context (METHOD 7)."""

    def __init__(self, prompt: Prompt):
        self.prompt = prompt
        self._slots = [index for index, message in enumerate(prompt.messages) if message["role"] == "assistant"]
        self._answers: list[Answer] = []

    @property
    def seed(self) -> int:
        """Seed for sampling the turn to come."""
        return self.prompt.seed(len(self._answers))

    @property
    def finished(self) -> bool:
        """No turn is missing."""
        return len(self._answers) == len(self._slots)

    def context(self) -> list[Message]:
        """The messages that the next turn answers."""
        messages = self._filled(self._slots[len(self._answers)])
        return [{key: value for key, value in message.items() if key != "weight"} for message in messages]

    def add(self, answer: Answer) -> None:
        """Take the next turn."""
        self._answers.append(answer)

    def written(self) -> FinishedDialogue:
        """The whole dialogue."""
        reasons = [answer.finish_reason for answer in self._answers]
        return FinishedDialogue(self.prompt, self._filled(len(self.prompt.messages)), reasons)

    def _filled(self, end: int) -> list[Message]:
        answers = iter(self._answers)
        return [
            {**message, "content": next(answers).text} if message["role"] == "assistant" else dict(message)
            for message in self.prompt.messages[:end]
        ]


def without_thought(text: str) -> str:
    """The answer behind a thought that the teacher wrote although thinking is off.

    Raises:
        RefusalError: the thought did not end within the tokens allowed.
    """
    _, close, answer = text.rpartition(_CLOSE_THOUGHT)
    if close:
        return answer.lstrip()
    if text.lstrip().startswith(_OPEN_THOUGHT):
        raise RefusalError(
            "the teacher was still thinking when the tokens ran out, and its thinking cannot be turned off"
        )
    return text
