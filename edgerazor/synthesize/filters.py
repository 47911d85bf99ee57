"""Which turns that a teacher wrote by itself are kept."""

import re
import unicodedata
from collections.abc import Sequence

from edgerazor.data.messages import Message
from edgerazor.schemas.synthesis import SCRIPTS, SelfPrompting
from edgerazor.synthesize.drafts import CUT, Draft, RefusalError
from edgerazor.synthesize.similarity import SimilarityIndex

QUESTION_KINDS = ("unfinished", "length", "broken", "script", "repetition", "duplicate")
"""Why a question is refused after it was written; of an answer there are "thought" and "refused" besides."""
_NAMES = {"user": "question", "assistant": "answer"}
_SEQUENCE = 4
_REPLACEMENT = "\ufffd"  # what decoding writes for them
_SCRIPT_SHARE = 0.95
# Letters of scripts without blanks between words are words of their own.
_UNSPACED = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff"
_WORD = re.compile(rf"[{_UNSPACED}]|[^\W{_UNSPACED}]+")


class Filters:
    """Looks at a dialogue after each of its turns.

    Args:
        settings: limits.
        index: the questions of the rows that were accepted.
    """

    def __init__(self, settings: SelfPrompting, index: SimilarityIndex):
        self._settings, self._index = settings, index

    def check(self, draft: Draft) -> None:
        """Look at the last turn.

        Raises:
            RefusalError: a filter refuses it; `kind` says which.
        """
        role, turn = draft.last
        name = _NAMES[role]
        if turn.finish_reason == CUT:
            raise RefusalError(f"the {name} did not end within the tokens allowed", "unfinished")
        self._check_length(name, turn.text)
        if _REPLACEMENT in turn.text:
            raise RefusalError(f"the {name} holds bytes that are no character", "broken")
        if self._settings.script is not None:
            share = script_share(turn.text, self._settings.script)
            if share < _SCRIPT_SHARE:
                raise RefusalError(f"{share:.0%} of the {name}'s letters are {self._settings.script}", "script")
        share = repetition(turn.text)
        if share > self._settings.max_repetition:
            raise RefusalError(f"{share:.0%} of the {name}'s four-word sequences occurred in it before", "repetition")
        messages = draft.written_messages()
        if role == "user" and len(messages) + 1 == len(draft.prompt.messages):
            self.check_duplicate(questions(messages))

    def check_duplicate(self, text: str) -> None:
        """Compare the words of the user with those of the rows accepted so far.

        Raises:
            RefusalError: they are like those of a row.
        """
        found = self._index.find(text)
        if found is not None:
            name, similarity = found
            raise RefusalError(f"the user's words are like those of {name} (similarity {similarity:.2f})", "duplicate")

    def _check_length(self, name: str, text: str) -> None:
        low, high = getattr(self._settings, f"min_{name}"), getattr(self._settings, f"max_{name}")
        count = len(text.strip())
        if not low <= count <= high:
            raise RefusalError(f"the {name} has {count} characters; allowed are {low} to {high}", "length")


def questions(messages: Sequence[Message]) -> str:
    """The words of the user."""
    return "\n".join(str(message["content"]) for message in messages if message["role"] == "user")


def repetition(text: str) -> float:
    """Share of the four-word sequences of a text that occurred in it before; 0 for a text of fewer words."""
    words = _WORD.findall(text.casefold())
    sequences = list(zip(*(words[start:] for start in range(_SEQUENCE)), strict=False))
    return 1 - len(set(sequences)) / len(sequences) if sequences else 0.0


def script_share(text: str, script: str) -> float:
    """Share of the letters that belong to a script, by their names in Unicode; 1 for a text without letters."""
    letters = [character for character in unicodedata.normalize("NFKC", text) if character.isalpha()]
    ours = sum(unicodedata.name(letter, "").startswith(SCRIPTS[script]) for letter in letters)
    return ours / len(letters) if letters else 1.0
