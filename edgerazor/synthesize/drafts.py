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
    """This dialogue cannot be answered; others may be. `kind` says why in a word, to be counted."""

    def __init__(self, message: str, kind: str = "refused"):
        super().__init__(message)
        self.kind = kind


@dataclass(frozen=True)
class Prompt:
    """A dialogue without the words that a teacher is to write.

    Attributes:
        id: 64 hexadecimal digits, of the messages and the settings.
        messages: as the file has them; the assistant's are `{"role": "assistant"}`, to be filled in, and so are those
            of the user where there is no file.
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
    """A dialogue that the teacher cannot answer, and why.

    Attributes:
        prompt: of the dialogue.
        reason: a sentence.
        kind: in a word, to be counted.
        messages: as far as they were written.
    """

    prompt: Prompt
    reason: str
    kind: str = "refused"
    messages: tuple[Message, ...] = ()


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
        self._slots = [index for index, message in enumerate(prompt.messages) if "content" not in message]
        self._answers: list[Answer] = []

    @property
    def seed(self) -> int:
        """Seed for sampling the turn to come."""
        return self.prompt.seed(len(self._answers))

    @property
    def finished(self) -> bool:
        """No turn is missing."""
        return len(self._answers) == len(self._slots)

    @property
    def role(self) -> str:
        """Who speaks in the turn to come."""
        return str(self.prompt.messages[self._slots[len(self._answers)]]["role"])

    @property
    def last(self) -> tuple[str, Answer]:
        """Who spoke last, and what."""
        return str(self.prompt.messages[self._slots[len(self._answers) - 1]]["role"]), self._answers[-1]

    def written_messages(self) -> list[Message]:
        """The messages up to the last turn that was written."""
        return self._filled(self._slots[len(self._answers) - 1] + 1)

    def refusal(self, error: RefusalError) -> Refusal:
        """The dialogue as it stands, refused."""
        written = tuple(self.written_messages()) if self._answers else ()
        return Refusal(self.prompt, str(error), error.kind, written)

    def context(self) -> list[Message]:
        """The messages that come before the next turn."""
        messages = self._filled(self._slots[len(self._answers)])
        return [{key: value for key, value in message.items() if key != "weight"} for message in messages]

    def add(self, answer: Answer) -> None:
        """Take the next turn."""
        self._answers.append(answer)

    def written(self) -> FinishedDialogue:
        """The whole dialogue."""
        roles = [self.prompt.messages[slot]["role"] for slot in self._slots]
        turns = zip(roles, self._answers, strict=True)
        reasons = [answer.finish_reason for role, answer in turns if role == "assistant"]
        return FinishedDialogue(self.prompt, self._filled(len(self.prompt.messages)), reasons)

    def _filled(self, end: int) -> list[Message]:
        answers = iter(self._answers)
        return [
            {**message, "content": next(answers).text} if "content" not in message else dict(message)
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
            "the teacher was still thinking when the tokens ran out, and its thinking cannot be turned off", "thought"
        )
    return text
