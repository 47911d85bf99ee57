"""Dialogues without any data: the teacher writes the user's turns, too, until enough of them pass the filters.

Candidate i is made from the seed and i alone. Candidates are judged in the order of their numbers, whatever order they
are finished in, so that what is accepted depends on nothing else, and a run that was killed goes on to the same rows.
Accepted ones are the rows of the output; refused ones stand with their reasons in a second file beside it.
"""

import hashlib
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgerazor.data.progress import show_progress
from edgerazor.errors import SynthesisError
from edgerazor.schemas.synthesis import SynthesisSettings
from edgerazor.synthesize.drafts import Draft, FinishedDialogue, Prompt, Refusal, RefusalError
from edgerazor.synthesize.filters import QUESTION_KINDS, Filters, questions
from edgerazor.synthesize.local import LocalWriter
from edgerazor.synthesize.prompts import canonical
from edgerazor.synthesize.signals import stopped_by_signals
from edgerazor.synthesize.similarity import SimilarityIndex
from edgerazor.synthesize.store import RowStore, check_output

REFUSED_SUFFIX = ".refused"
_LEAST_ATTEMPTS, _ATTEMPTS_PER_ROW = 100, 10

OpenWriter = Callable[[Callable[[Draft], None]], LocalWriter]


@dataclass
class SelfPromptedResult:
    """What a run did.

    Attributes:
        wanted: rows.
        present: rows of earlier runs.
        written: rows of this run.
        judged: candidates of all runs.
        refused: those among them that were refused, by kind.
        new_tokens: that the teacher wrote in this run, those of candidates that were not judged included.
        interrupted: True after Ctrl-C or SIGTERM; what was judged is in the files.
        seconds: of this run, with loading.
    """

    wanted: int
    present: int = 0
    written: int = 0
    judged: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    new_tokens: int = 0
    interrupted: bool = False
    seconds: float = 0.0

    @property
    def rows(self) -> int:
        """In the file."""
        return self.present + self.written

    def explain_refusals(self) -> str:
        """Counts by kind, the largest first."""
        return ", ".join(f"{count} {kind}" for kind, count in self.refused.most_common()) or "none"


def self_prompt(
    output: Path,
    settings: SynthesisSettings,
    *,
    count: int,
    open_writer: OpenWriter,
    max_attempts: int | None = None,
) -> SelfPromptedResult:
    """Let a teacher write whole dialogues into `output` until it holds `count` of them.

    Args:
        output: JSON lines, appended to; `OUTPUT.refused` beside it holds the candidates that were refused.
        settings: with a section `self_prompted`; those of the rows in the files, if there are any.
        count: rows that the file is to hold.
        open_writer: makes the teacher, which calls what it is given after every turn; called if a row is missing.
        max_attempts: candidates to judge at most, those of earlier runs included; None: ten for a row, at least 100.

    Raises:
        SynthesisError: a file is not ours or cannot be written, the teacher cannot go on, or the attempts are used up.
    """
    began = time.monotonic()
    check_output(output)
    run = _Run(settings, count, max_attempts or max(_LEAST_ATTEMPTS, _ATTEMPTS_PER_ROW * count))
    refused = output.with_name(output.name + REFUSED_SUFFIX)
    with RowStore(output, settings, run.know_row) as rows, RowStore(refused, settings, run.know_refusal) as refusals:
        run.result.present = len(rows.done)
        if run.result.rows < count:
            _write(run, rows, refusals, open_writer)
    result = run.result
    result.seconds = time.monotonic() - began
    if result.rows < count and not result.interrupted:
        raise SynthesisError(
            f"{output}: holds {result.rows} of {count} dialogues after {result.judged} attempts; refused were "
            f"{result.explain_refusals()} ({refused} has them). --max-attempts allows more"
        )
    return result


class _Run:
    """Which candidates are judged, and how the next ones are."""

    def __init__(self, settings: SynthesisSettings, count: int, max_attempts: int):
        assert settings.self_prompted is not None
        self.settings, self.max_attempts = settings, max_attempts
        self.result = SelfPromptedResult(count)
        self._index = SimilarityIndex(settings.self_prompted.max_similarity)
        self.filters = Filters(settings.self_prompted, self._index)
        self._judged = set[int]()

    def know_row(self, row: dict[str, Any]) -> None:
        """A row of an earlier run."""
        self._accept(row["index"], row["messages"])

    def know_refusal(self, row: dict[str, Any]) -> None:
        """A refusal of an earlier run."""
        self._refuse(row["index"], row["refused"])

    def unjudged(self) -> Iterator[int]:
        """Numbers of candidates, smallest first."""
        return (index for index in range(self.max_attempts) if index not in self._judged)

    def judge(self, index: int, outcome: FinishedDialogue | Refusal, rows: RowStore, refusals: RowStore) -> bool:
        """Write the candidate to its file; returns whether it was accepted."""
        if _all_asked(outcome):
            # Perhaps a row was accepted since that was looked at; an answer that is refused does not hide it.
            asked = outcome.messages[: len(outcome.prompt.messages) - 1]
            try:
                self.filters.check_duplicate(questions(asked))
            except RefusalError as error:
                outcome = Refusal(outcome.prompt, str(error), error.kind, tuple(asked))
        if isinstance(outcome, Refusal):
            columns = {"index": index, "refused": outcome.kind, "reason": outcome.reason}
            refusals.append_row(outcome.prompt.id, {**columns, "messages": list(outcome.messages)})
            self._refuse(index, outcome.kind)
            return False
        rows.append(outcome, index=index)
        self._accept(index, outcome.messages)
        self.result.written += 1
        return True

    def _accept(self, index: int, messages: list[dict[str, Any]]) -> None:
        self._index.add(questions(messages), f"candidate {index}")
        self._judge(index)

    def _refuse(self, index: int, kind: str) -> None:
        self.result.refused[kind] += 1
        self._judge(index)

    def _judge(self, index: int) -> None:
        self._judged.add(index)
        self.result.judged += 1


def _all_asked(outcome: FinishedDialogue | Refusal) -> bool:
    """Whether the last question passed its filters."""
    missing = len(outcome.prompt.messages) - len(outcome.messages)
    return missing == 0 or (missing == 1 and isinstance(outcome, Refusal) and outcome.kind not in QUESTION_KINDS)


def candidate(index: int, settings: SynthesisSettings) -> Prompt:
    """A dialogue without a word; its id, and so its random numbers, do not depend on the filters."""
    assert settings.self_prompted is not None
    system = {"role": "system", "content": settings.system_prompt}
    messages = [system] if settings.system_prompt is not None else []
    messages += [{"role": "user"}, {"role": "assistant"}] * settings.self_prompted.turns
    made = settings.model_copy(update={"self_prompted": None}).model_dump(mode="json")
    text = f"self-prompted {index}\n{canonical(made)}"
    return Prompt(hashlib.sha256(text.encode()).hexdigest(), tuple(messages), f"candidate {index}")


def _write(run: _Run, rows: RowStore, refusals: RowStore, open_writer: OpenWriter) -> None:
    result, order = run.result, run.unjudged()
    numbers: dict[str, int] = {}
    waiting: dict[int, FinishedDialogue | Refusal] = {}

    def candidates() -> Iterator[Prompt]:
        for index in run.unjudged():
            prompt = candidate(index, run.settings)
            numbers[prompt.id] = index
            yield prompt

    writer = open_writer(run.filters.check)
    current = next(order, None)
    with stopped_by_signals(writer.stop) as received, show_progress("Writing", result.wanted) as advance:
        advance(result.present)
        for outcome in writer.write(candidates()):
            waiting[numbers.pop(outcome.prompt.id)] = outcome
            while current in waiting and result.rows < result.wanted:
                advance(run.judge(current, waiting.pop(current), rows, refusals))
                current = next(order, None)
            if result.rows >= result.wanted:
                writer.stop()
                break
    result.new_tokens = writer.engine.new_tokens
    result.interrupted = bool(received) and result.rows < result.wanted
