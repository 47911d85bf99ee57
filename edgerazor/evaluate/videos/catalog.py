"""Which tasks about videos there are: what their rows hold, and how they ask."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from string import ascii_uppercase
from typing import Any

from edgerazor.errors import DataError
from edgerazor.evaluate.tasks.keys import SECONDS, TEXT, TEXTS, Kind, check_keys
from edgerazor.schemas.messages import describe, nearest

DURATIONS = ("short", "medium", "long")
Row = Mapping[str, Any]


@dataclass(frozen=True)
class VideoTask:
    """A task about videos.

    Attributes:
        name: of the task, and of the file of its rows.
        keys: that a row has.
        opening: stands before the question, with the letters of the options in the place of `{letters}`.
        option: how an option is written, of `{letter}` and `{text}`.
        heading: a line between question and options, if any.
        closing: stands behind the options.
        parts: keys by whose values the rows are counted apart, too.
        mean_of_parts: the mean of the shares of the parts is a figure of its own.
        optional: keys that a row may have.
        file_of_rows, shots: as for other tasks; there are no examples.
    """

    name: str
    keys: Mapping[str, Kind]
    opening: str
    option: str
    closing: str
    parts: tuple[str, ...]
    heading: str = ""
    mean_of_parts: bool = False
    optional: Mapping[str, Kind] = field(default_factory=lambda: {"seconds": SECONDS})
    shots: None = None

    @property
    def file_of_rows(self) -> str:
        """Name of the file of rows, without its ending."""
        return self.name

    def ask(self, row: Row) -> str:
        """The text behind the video."""
        letters = letters_of(row)
        named = f"{', '.join(letters[:-1])}, or {letters[-1]}" if len(letters) > 2 else " or ".join(letters)
        options = [
            self.option.format(letter=letter, text=text) for letter, text in zip(letters, row["options"], strict=True)
        ]
        question = self.opening.replace("{letters}", named) + row["question"]
        return "\n".join([question, *([self.heading] if self.heading else []), *options, self.closing])

    def keep(self, row: Row, where: str) -> dict[str, Any]:
        """The keys of the task alone, if each is there and of its kind.

        Raises:
            DataError: it is not, the answer is none of the options, or there is no such duration.
        """
        there = {key: kind for key, kind in self.optional.items() if row.get(key) is not None}
        kept = check_keys(row, f"{where}: ", {**self.keys, **there})
        letters = letters_of(row)
        if row["answer"] not in letters:
            expected = f"the letter of an option, {', '.join(letters)}"
            raise DataError(f"{where}: answer: expected {expected}, got {describe(row['answer'])}")
        if "duration" in self.keys and row["duration"] not in DURATIONS:
            raise DataError(f"{where}: duration: got '{row['duration']}'{nearest(row['duration'], DURATIONS)}")
        return kept


def letters_of(row: Row) -> list[str]:
    """Letters of the options of a row."""
    return list(ascii_uppercase[: len(row["options"])])


_KEYS = {"question": TEXT, "options": TEXTS, "answer": TEXT, "video": TEXT}
VIDEO_TASKS: Mapping[str, VideoTask] = {
    task.name: task
    for task in (
        # The benchmark's own prompt without subtitles, as lmms-eval's tasks/videomme/utils.py cites it.
        VideoTask(
            "video_mme",
            {**_KEYS, "duration": TEXT, "category": TEXT},
            "Select the best answer to the following multiple-choice question based on the video. Respond with only "
            "the letter ({letters}) of the correct option.\n",
            "{letter}. {text}",
            "The best answer is:",
            ("duration", "category"),
        ),
        # As lmms-eval's tasks/mlvu asks; the options stand in its questions as VLMEvalKit's mlvu.py writes them.
        VideoTask(
            "mlvu",
            {**_KEYS, "category": TEXT},
            "Question: ",
            "({letter}) {text}",
            "Only give the best option.\nBest option: (",
            ("category",),
            heading="Options:",
            mean_of_parts=True,
        ),
    )
}


def separate(names: Sequence[str]) -> tuple[list[str], list[VideoTask]]:
    """Names of other tasks and groups, and the tasks about videos, of names with commas between them."""
    asked = dict.fromkeys(name for part in names for name in part.replace(",", " ").split())
    return [name for name in asked if name not in VIDEO_TASKS], [
        VIDEO_TASKS[name] for name in asked if name in VIDEO_TASKS
    ]


def parts_of(task: VideoTask, rows: Sequence[Row]) -> Iterator[tuple[str, list[int]]]:
    """What the table calls each part of a task, and the numbers of its rows."""
    for key in task.parts:
        found: dict[str, list[int]] = {}
        for number, row in enumerate(rows):
            found.setdefault(row[key], []).append(number)
        order = DURATIONS if key == "duration" else sorted(found)
        yield from ((f"{task.name}/{value}", found[value]) for value in order if value in found)
