"""Counters in the text format of Prometheus."""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from edgerazor.serve.queue import JobQueue

MEDIA_TYPE = "text/plain; version=0.0.4; charset=utf-8"


@dataclass
class Metrics:
    """Of one model since the server began.

    Attributes:
        requests: answered, by status; 499 where the client went away.
        prompt_tokens: of all prompts.
        cached_tokens: of these, already in the cache.
        new_tokens: written.
        seconds: from the beginning of answers to their end.
        engine_seconds: of these, spent in the engine.
        first_token_seconds: from the arrival of requests to the first token, waiting included.
        first_tokens: of how many requests that is the sum.
    """

    requests: Counter[int] = field(default_factory=Counter)
    prompt_tokens: int = 0
    cached_tokens: int = 0
    new_tokens: int = 0
    seconds: float = 0.0
    engine_seconds: float = 0.0
    first_token_seconds: float = 0.0
    first_tokens: int = 0


def metrics_text(models: Mapping[str, tuple[Metrics, JobQueue]]) -> str:
    """All figures of all models, by name."""
    lines = list(_family("requests_total", "counter", "Requests by status; 499 where the client went away."))
    for name, (metrics, _) in models.items():
        for status, count in sorted(metrics.requests.items()):
            lines.append(f'edgerazor_requests_total{{model="{_escaped(name)}",status="{status}"}} {count}')
    for key, kind, text in _FAMILIES:
        lines += _family(key, kind, text)
        for name, (metrics, jobs) in models.items():
            lines.append(f'edgerazor_{key}{{model="{_escaped(name)}"}} {_value(metrics, jobs, key)}')
    return "\n".join(lines) + "\n"


_FAMILIES = (
    ("prompt_tokens_total", "counter", "Tokens of prompts."),
    ("cached_tokens_total", "counter", "Tokens of prompts that were in the cache already."),
    ("new_tokens_total", "counter", "Tokens written."),
    ("seconds_total", "counter", "Seconds from the beginning of answers to their end."),
    ("engine_seconds_total", "counter", "Seconds of these in the engine."),
    ("first_token_seconds_sum", "counter", "Seconds from the arrival of requests to their first token."),
    ("first_token_seconds_count", "counter", "Requests that had a first token."),
    ("queue_waiting", "gauge", "Requests that wait."),
    ("queue_running", "gauge", "Requests that are being answered."),
)


def _value(metrics: Metrics, jobs: JobQueue, key: str) -> float:
    queue = {"queue_waiting": jobs.waiting, "queue_running": jobs.running}
    if key in queue:
        return queue[key]
    figures = {**vars(metrics), "first_token_seconds_sum": metrics.first_token_seconds}
    figures["first_token_seconds_count"] = metrics.first_tokens
    return float(figures[key.removesuffix("_total")])


def _family(key: str, kind: str, text: str) -> Iterator[str]:
    yield f"# HELP edgerazor_{key} {text}"
    yield f"# TYPE edgerazor_{key} {kind}"


def _escaped(name: str) -> str:
    return name.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
