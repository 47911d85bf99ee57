"""Answers of several models to the same questions."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from edgerazor.core.registry import Registry
from edgerazor.errors import DataError, EdgeRazorError
from edgerazor.inference.generate import GenerationSettings, generate_text
from edgerazor.inference.open_runtime import open_runtime

QUESTIONS = (
    "What is the capital of France?",
    "Write a sentence about the sea.",
    "Explain in two sentences why the sky is blue.",
)


@dataclass(frozen=True)
class Answers:
    """What was written.

    Attributes:
        questions: in order.
        texts: an answer to each, by the name of the model.
        faults: why a model did not answer.
    """

    questions: Sequence[str] = ()
    texts: Mapping[str, Sequence[str]] = field(default_factory=dict)
    faults: Mapping[str, str] = field(default_factory=dict)


def read_questions(path: Path) -> list[str]:
    """A question a line; of JSON lines, the key `prompt`.

    Raises:
        DataError: there is none, or a line is malformed.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: is no text in UTF-8: {error}") from error
    questions = [
        _of_row(line, f"{path}: line {number}") if path.suffix == ".jsonl" else line
        for number, line in enumerate(lines, start=1)
        if line.strip()
    ]
    if not questions:
        raise DataError(f"{path}: holds no question; expected one a line")
    return questions


def ask(
    models: Mapping[str, Path],
    questions: Sequence[str],
    *,
    registry: Registry,
    max_new_tokens: int,
    say: Callable[[str], None],
) -> Answers:
    """Let every model answer, the likeliest token each time, one model in memory at a time.

    Args:
        models: what `open_runtime` takes, by name.
        questions: a user's message each where the model has a chat template, else a text to go on from.
        registry: loaded plugins.
        max_new_tokens: of an answer.
        say: told which model is at it.
    """
    texts, faults, settings = dict[str, list[str]](), dict[str, str](), GenerationSettings(max_new_tokens)
    for name, path in models.items():
        say(f"{name} answers {len(questions)} questions")
        try:
            runtime = open_runtime(path, registry=registry, unquantized=True)
            try:
                texts[name] = [generate_text(runtime, question, settings) for question in questions]
            finally:
                runtime.close()
        except EdgeRazorError as error:
            say(f"{name} does not answer: {error}")
            faults[name] = str(error)
    return Answers(questions, texts, faults)


def _of_row(line: str, where: str) -> str:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{where}: is not valid JSON: {error}") from error
    if not isinstance(row, dict) or not isinstance(row.get("prompt"), str):
        raise DataError(f'{where}: expected {{"prompt": "..."}}')
    return str(row["prompt"])
