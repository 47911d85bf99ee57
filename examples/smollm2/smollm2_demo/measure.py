"""Figures of one model: held-out text, speed in its engine, answers."""

import time
from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

from edgerazor.core.contracts import Runtime
from edgerazor.inference.generate import GenerationSettings, generate_text

QUESTIONS = (
    "What is the capital of France?",
    "Why is the sky blue?",
    "Give me three tips for sleeping well.",
    "Write a short poem about the sea.",
    "What is 7 plus 5?",
    "Explain what a computer program is to a child.",
)
GREEDY_PROMPTS = ("Tell me about the history of bread.", "How does a bicycle stay upright?")
PROMPT_TOKENS = 64


def speed(runtime: Runtime, tokens: int) -> Mapping[str, Any]:
    """Tokens per second that are read at once, and that are written one by one (median step), in a warm engine."""
    text = runtime.encode(" ".join(QUESTIONS) * 2, chat=False)[:PROMPT_TOKENS]
    for _ in range(2):
        runtime.restart()
        started = time.perf_counter()
        token = int(runtime.feed(text)[0].argmax())
        read = time.perf_counter() - started
    steps = []
    for _ in range(tokens):
        started = time.perf_counter()
        token = int(runtime.feed([token])[0].argmax())
        steps.append(time.perf_counter() - started)
    return {"engine": runtime.engine, "read": len(text) / read, "write": 1.0 / median(steps)}


def answers(runtime: Runtime, questions: Sequence[str], tokens: int) -> list[str]:
    """The likeliest answer to each question, cut after so many tokens."""
    return [generate_text(runtime, question, GenerationSettings(tokens)).strip() for question in questions]
