"""From sources to prompts: the assistant's words are taken out, and each prompt is asked once."""

import hashlib
import json
from collections.abc import Collection, Container, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgerazor.data.bad_rows import BadRows
from edgerazor.data.dialogue import Dialogue
from edgerazor.data.progress import show_progress
from edgerazor.data.sources import Column, load_documents
from edgerazor.data.tables import Row
from edgerazor.errors import DataError
from edgerazor.schemas.data import Source
from edgerazor.schemas.synthesis import SynthesisSettings
from edgerazor.synthesize.drafts import Prompt, RefusalError

_ROWS_AT_A_TIME = 256


@dataclass(frozen=True)
class Survey:
    """What the sources hold.

    Attributes:
        todo: per source, int64 rows that are to be answered.
        distinct: prompts within the limit, those that are answered already included.
        duplicates: rows whose prompt came before.
    """

    todo: tuple[np.ndarray, ...]
    distinct: int
    duplicates: int

    def __len__(self) -> int:
        return sum(map(len, self.todo))


class PromptReader:
    """The sources as prompts.

    Args:
        sources: rows of messages, or of text: each is then one message of a user.
        settings: of the run; the row ids depend on them.
        bad: collects rows that are no dialogues or cannot be answered.
        known: keys of messages that are understood besides the usual ones, such as those that a chat template reads.

    Raises:
        DataError: a source cannot be read.
    """

    def __init__(
        self, sources: Sequence[Source], settings: SynthesisSettings, bad: BadRows, known: Container[str] = ()
    ):
        self._documents = [load_documents(source, bad) for source in sources]
        self._settings, self._bad, self._known = settings, bad, known
        self._settings_text = canonical(settings.model_dump(mode="json"))

    def survey(self, done: Collection[str], *, limit: int | None = None) -> Survey:
        """Read everything once, so that faulty rows are found before hours are spent.

        Args:
            done: ids that are written already.
            limit: use the first this many prompts.

        Raises:
            DataError: rows cannot be used and are refused; the first ten are named.
        """
        seen: set[bytes] = set()
        todo: list[list[int]] = [[] for _ in self._documents]
        duplicates = 0
        with show_progress("Reading", sum(map(len, self._documents))) as advance:
            for number, row, prompt in self._everything():
                if limit is not None and len(seen) >= limit:
                    break
                advance(1)
                if prompt is None:
                    continue
                digest = bytes.fromhex(prompt.id)
                if digest in seen:
                    duplicates += 1
                elif prompt.id not in done:
                    todo[number].append(row)
                seen.add(digest)
        if self._bad.policy == "refuse":
            self._bad.settle()
        return Survey(tuple(np.array(rows, dtype=np.int64) for rows in todo), len(seen), duplicates)

    def prompts(self, survey: Survey) -> Iterator[Prompt]:
        """What is to be answered, in the order of the sources."""
        for number, rows in enumerate(survey.todo):
            for prompt in self._read(number, rows):
                assert prompt is not None
                yield prompt

    def _everything(self) -> Iterator[tuple[int, int, Prompt | None]]:
        for number, documents in enumerate(self._documents):
            for row, prompt in enumerate(self._read(number, np.arange(len(documents)))):
                yield number, row, prompt

    def _read(self, number: int, chosen: np.ndarray) -> Iterator[Prompt | None]:
        """The prompts of rows; None for a row that cannot be used."""
        for column, places, rows in self._documents[number].batches(chosen, _ROWS_AT_A_TIME):
            for place, row in zip(places.tolist(), rows, strict=True):
                try:
                    yield self._prompt(column, row, column.where(place))
                except DataError as error:
                    self._bad.add(error)
                    yield None

    def _prompt(self, column: Column, row: Row, where: str) -> Prompt:
        if column.format == "text":
            dialogue = _question(row[column.field])
        else:
            dialogue = column.dialogue(row, where, known=self._known)
        dialogue = dialogue.with_system_prompt(self._settings.system_prompt)
        try:
            messages = prompt_messages(dialogue)
        except RefusalError as error:
            raise DataError(f"{where}: {error}") from error
        tools = f"{canonical(dialogue.tools)}\n" if dialogue.tools else ""
        text = f"{canonical(messages)}\n{tools}{self._settings_text}"
        return Prompt(hashlib.sha256(text.encode()).hexdigest(), tuple(messages), where, dialogue.tools)


def _question(text: str) -> Dialogue:
    return Dialogue(({"role": "user", "content": text},), (False,))


def prompt_messages(dialogue: Dialogue) -> list[dict[str, Any]]:
    """A dialogue without the assistant's words, and with a turn of the assistant at its end.

    Turns of the assistant that follow each other become one, with `"weight": 0` where none of them is learned.

    Raises:
        RefusalError: the assistant speaks first or calls tools: its words then cannot be replaced by an answer.
    """
    messages: list[dict[str, Any]] = []
    for message, learned in zip(dialogue.messages, dialogue.learned, strict=True):
        if message["role"] != "assistant":
            messages.append(message)
            continue
        if message.get("tool_calls"):
            raise RefusalError("the assistant calls a tool, whose result would not belong to a new answer")
        if not any(earlier["role"] == "user" for earlier in messages):
            raise RefusalError("the assistant speaks before any user, so there is nothing to answer")
        if messages[-1]["role"] != "assistant":
            messages.append({"role": "assistant"} if learned else {"role": "assistant", "weight": 0})
        elif learned:
            messages[-1].pop("weight", None)
    if messages[-1]["role"] != "assistant":
        if not any(message["role"] == "user" for message in messages):
            raise RefusalError("no message is a user's, so there is nothing to answer")
        messages.append({"role": "assistant"})
    return messages


def canonical(value: Any) -> str:
    """One JSON text for equal values, whatever the order of keys; dates and the like, which JSON lacks, as text."""
    return json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"), default=str)
