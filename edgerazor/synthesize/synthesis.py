"""`synthesize`: every assistant turn of the sources written anew by a teacher (METHOD 7), resumable."""

import time
from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from edgerazor.data.bad_rows import BadRows
from edgerazor.data.progress import show_progress
from edgerazor.errors import SynthesisError
from edgerazor.schemas.data import Source
from edgerazor.schemas.paths import local_path
from edgerazor.schemas.synthesis import SynthesisSettings
from edgerazor.synthesize.drafts import CUT, FinishedDialogue, Refusal, Writer
from edgerazor.synthesize.prompts import PromptReader, Survey
from edgerazor.synthesize.signals import stopped_by_signals
from edgerazor.synthesize.store import RowStore, check_output


@dataclass
class SynthesisResult:
    """What a run did.

    Attributes:
        prompts: distinct dialogues of the sources, within the limit.
        written: by this run.
        present: of `prompts`, written by earlier runs.
        duplicates: rows whose prompt is that of an earlier row.
        cut: answers of this run that the limit of tokens ended.
        empty: answers of this run without a word.
        refused: dialogues left out.
        interrupted: True after Ctrl-C or SIGTERM; what was finished is in the file.
        seconds: of this run, with reading and loading.
    """

    prompts: int = 0
    written: int = 0
    present: int = 0
    duplicates: int = 0
    cut: int = 0
    empty: int = 0
    refused: BadRows = field(default_factory=BadRows)
    interrupted: bool = False
    seconds: float = 0.0


def synthesize(
    sources: Sequence[Source],
    output: Path,
    settings: SynthesisSettings,
    *,
    open_writer: Callable[[], Writer],
    limit: int | None = None,
    skip_refused: bool = False,
    known: Container[str] = (),
) -> SynthesisResult:
    """Let a teacher write the assistant's turns of the sources into `output`, where that is not done already.

    Args:
        sources: as in the recipe's data section; a row of text is one message of a user.
        output: JSON lines, appended to: one row per dialogue, written when it is finished.
        settings: teacher and sampling; those of the rows in the file, if there are any.
        open_writer: makes the teacher; called after the sources were read, if there is anything to write.
        limit: use the first this many distinct dialogues.
        skip_refused: leave out rows that are no dialogues or cannot be answered (too long, for example); False: they
            are errors.
        known: keys of messages that are understood besides the usual ones.

    Raises:
        DataError: a source or one of its rows is not as expected.
        SynthesisError: the file is not ours or cannot be written, or the teacher cannot go on.
    """
    bad = BadRows("skip" if skip_refused else "refuse", "--skip-refused")
    began, result = time.monotonic(), SynthesisResult(refused=bad)
    _check_apart(sources, output)
    with RowStore(output, settings) as store:
        reader = PromptReader(sources, settings, bad, known)
        survey = reader.survey(store.done, limit=limit)
        result.prompts, result.duplicates = survey.distinct, survey.duplicates
        result.present = survey.distinct - len(survey)
        if len(survey):
            _write(open_writer(), reader, survey, store, result)
    if bad.count and not result.written and not result.present:
        raise SynthesisError(f"no dialogue could be answered; the first is {bad.shown[0]}")
    result.seconds = time.monotonic() - began
    return result


def _write(
    writer: Writer,
    reader: PromptReader,
    survey: Survey,
    store: RowStore,
    result: SynthesisResult,
) -> None:
    try:
        with stopped_by_signals(writer.stop) as received, show_progress("Writing", len(survey)) as advance:
            for outcome in writer.write(reader.prompts(survey)):
                if isinstance(outcome, Refusal):
                    said = f"{outcome.prompt.where}: {outcome.reason}"
                    if result.refused.policy == "refuse":
                        raise SynthesisError(said)
                    result.refused.add(said)
                else:
                    store.append(outcome)
                    _count(outcome, result)
                advance(1)
            result.interrupted = bool(received) and result.written + result.present < result.prompts
    except SynthesisError as error:
        there = result.present + result.written
        raise SynthesisError(
            f"{error}\n{store.path}: {there} of {result.prompts} dialogues are written; the same command goes on"
        ) from error


def _count(written: FinishedDialogue, result: SynthesisResult) -> None:
    result.written += 1
    result.cut += written.finish_reasons.count(CUT)
    answers = [message["content"] for message in written.messages if message["role"] == "assistant"]
    result.empty += sum(not answer.strip() for answer in answers)


def _check_apart(sources: Sequence[Source], output: Path) -> None:
    """A file that is read must not grow, and a folder must not hold its own answers."""
    check_output(output)
    target = output.resolve()
    for source in sources:
        path = local_path(source.path).resolve()
        if target == path or path in target.parents:
            raise SynthesisError(f"{output}: belongs to the source {source.path}; write to another place")
