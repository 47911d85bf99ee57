"""From sources to prompts: the assistant's words are taken out, and each prompt is asked once."""

import hashlib
import json
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgerazor.data.bad_rows import BadRows
from edgerazor.data.dialogue import Dialogue
from edgerazor.data.progress import show_progress
from edgerazor.data.sources import load_documents
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

    Raises:
        DataError: a source cannot be read.
    """

    def __init__(self, sources: Sequence[Source], settings: SynthesisSettings):
        bad = BadRows()
        self._documents = [load_documents(source, bad) for source in sources]
        bad.settle()
        self._settings = settings
        self._settings_text = canonical(settings.model_dump(mode="json"))

    def survey(
        self, done: Collection[str], on_refusal: Callable[[str, str], None], *, limit: int | None = None
    ) -> Survey:
        """Read everything once, so that a faulty row is found before hours are spent.

        Args:
            done: ids that are written already.
            on_refusal: called with the place of a dialogue that cannot be asked, and why.
            limit: use the first this many prompts.

        Raises:
            DataError: a row is no dialogue.
        """
        seen: set[bytes] = set()
        todo: list[list[int]] = [[] for _ in self._documents]
        duplicates = 0
        with show_progress("Reading", sum(map(len, self._documents))) as advance:
            for number, row, prompt in self._everything():
                if limit is not None and len(seen) >= limit:
                    break
                advance(1)
                if not isinstance(prompt, Prompt):
                    on_refusal(*prompt)
                    continue
                digest = bytes.fromhex(prompt.id)
                if digest in seen:
                    duplicates += 1
                elif prompt.id not in done:
                    todo[number].append(row)
                seen.add(digest)
        return Survey(tuple(np.array(rows, dtype=np.int64) for rows in todo), len(seen), duplicates)

    def prompts(self, survey: Survey) -> Iterator[Prompt]:
        """What is to be answered, in the order of the sources."""
        for number, rows in enumerate(survey.todo):
            for prompt in self._read(number, rows):
                assert isinstance(prompt, Prompt)
                yield prompt

    def _everything(self) -> Iterator[tuple[int, int, Prompt | tuple[str, str]]]:
        for number, documents in enumerate(self._documents):
            for row, prompt in enumerate(self._read(number, np.arange(len(documents)))):
                yield number, row, prompt

    def _read(self, number: int, chosen: np.ndarray) -> Iterator[Prompt | tuple[str, str]]:
        for column, places, rows in self._documents[number].batches(chosen, _ROWS_AT_A_TIME):
            for place, row in zip(places.tolist(), rows, strict=True):
                where = column.where(place)
                dialogue = _question(row[column.field]) if column.format == "text" else column.dialogue(row, where)
                dialogue = dialogue.with_system_prompt(self._settings.system_prompt)
                try:
                    messages = prompt_messages(dialogue)
                except RefusalError as error:
                    yield where, str(error)
                    continue
                tools = f"{canonical(dialogue.tools)}\n" if dialogue.tools else ""
                text = f"{canonical(messages)}\n{tools}{self._settings_text}"
                yield Prompt(hashlib.sha256(text.encode()).hexdigest(), tuple(messages), where, dialogue.tools)


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
