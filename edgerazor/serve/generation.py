"""Answers in the thread of a model: events that the endpoints make objects and frames of."""

import secrets
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgerazor.inference.continuation import Continuation, TextStream
from edgerazor.inference.sampling import Sampling
from edgerazor.serve.answers import AnswerReader, Piece
from edgerazor.serve.logprobs import TokenChances, chances_of, score
from edgerazor.serve.models import ServedModel
from edgerazor.serve.prompts import check_length, encode_prompt, render_chat
from edgerazor.serve.queue import Job
from edgerazor.serve.requests import ChatRequest, CompletionRequest, GenerationRequest
from edgerazor.serve.settings import ServeSettings
from edgerazor.serve.stops import StopStrings

_CHUNK = 256  # between the chunks of a long prompt a client that is gone is noticed


@dataclass(frozen=True)
class Begun:
    """The prompts are read; `prompt_tokens` of all of them."""

    prompt_tokens: int


@dataclass(frozen=True)
class Written:
    """A part of choice `index`: text as it is, or a piece of an assistant's answer."""

    index: int
    text: str = ""
    piece: Piece = field(default_factory=Piece)
    chances: Sequence[TokenChances] = ()


@dataclass(frozen=True)
class Finished:
    """Choice `index` is at its end, after so many new tokens, for the reason `stop`, `length` or `tool_calls`."""

    index: int
    reason: str
    new_tokens: int


class Generation:
    """Writes the answers to one request.

    Args:
        model: is used by this thread alone.
        settings: of the server.
        arrived: `time.perf_counter()` when the request came.
    """

    def __init__(self, model: ServedModel, settings: ServeSettings, arrived: float):
        self._model, self._settings, self._arrived = model, settings, arrived

    def chat(self, request: ChatRequest, job: Job) -> Iterator[Any]:
        """Events of an assistant's answer."""
        with self._timed():
            ids, in_thought = render_chat(self._model, request)
            yield self._begin([ids], "messages")
            tools = [tool["function"]["name"] for tool in request.tools or () if request.tool_choice != "none"]
            reader, called = AnswerReader(in_thought=in_thought, tools=tools), False
            writing = _Writing(self._model, request, self._longest(request.asked_tokens, ids), job, self._arrived)
            for text in writing.texts(ids):
                for piece in reader.add(text):
                    called |= piece.call is not None
                    yield Written(0, piece=piece)
            for piece in reader.finish():
                called |= piece.call is not None
                yield Written(0, piece=piece)
            reason = "tool_calls" if called and writing.reason == "stop" else writing.reason
            yield Finished(0, reason, writing.new_tokens)

    def complete(self, request: CompletionRequest, job: Job) -> Iterator[Any]:
        """Events of one continuation after the other."""
        with self._timed():
            prompts = [encode_prompt(self._model, prompt) for prompt in request.prompts]
            yield self._begin([ids for ids, _ in prompts], "prompt")
            for index, (ids, prompt) in enumerate(prompts):
                if request.echo:
                    scored = score(self._model.runtime, ids, request.logprobs, job)
                    yield Written(index, text=prompt, chances=scored)
                most = self._longest(request.asked_tokens, ids)
                writing = _Writing(self._model, request, most, job, self._arrived, logprobs=request.logprobs)
                for text in writing.texts(ids):
                    yield Written(index, text=text, chances=writing.take_chances())
                if left := writing.take_chances():
                    yield Written(index, chances=left)
                yield Finished(index, writing.reason, writing.new_tokens)

    def _begin(self, prompts: Sequence[Sequence[int]], param: str) -> Begun:
        for ids in prompts:
            check_length(self._model, ids, self._settings.max_prompt_tokens, param)
        count = sum(map(len, prompts))
        self._model.metrics.prompt_tokens += count
        return Begun(count)

    def _longest(self, asked: int | None, ids: Sequence[int]) -> int:
        """New tokens at most: the last one need not fit the context, since it is not fed."""
        room = self._model.runtime.context_length - len(ids) + 1
        return min(room, self._settings.max_new_tokens, room if asked is None else asked)

    @contextmanager
    def _timed(self) -> Iterator[None]:
        start = time.perf_counter()
        try:
            yield
        finally:
            self._model.metrics.seconds += time.perf_counter() - start


class _Writing:
    """New text of one prompt, up to a stop string, a token that ends a text, or the length.

    Attributes:
        reason: `stop` or `length`.
        new_tokens: so far, without the one that ended the text.
    """

    def __init__(
        self,
        model: ServedModel,
        request: GenerationRequest,
        most: int,
        job: Job,
        arrived: float,
        *,
        logprobs: int | None = None,
    ):
        self.reason, self.new_tokens = "length", 0
        self._model, self._most, self._job, self._arrived = model, most, job, arrived
        self._sampling = sampling_of(request)
        self._stops = StopStrings(request.stops)
        self._logprobs = logprobs
        self._chances: list[TokenChances] = []

    def texts(self, ids: Sequence[int]) -> Iterator[str]:
        """Pieces of text, whole characters each; nothing more once the job has ended."""
        if not self._most:
            return
        runtime = self._model.runtime
        pending = self._read(ids)
        stream, stops = TextStream(runtime.decode), self._stops
        tokens = Continuation(self._feed, pending, self._sampling, stop_ids=runtime.stop_ids, most=self._most)
        for token in tokens:
            if self._job.ended:
                return
            self._count()
            if self._logprobs is not None:
                self._chances.append(chances_of(runtime, tokens.logits, token, self._logprobs))
            if text := stops.add(stream.add(token)):
                yield text
            if stops.found:
                break
        if text := stops.add(stream.finish()) + stops.finish():
            yield text
        if tokens.ended or stops.found:
            self.reason = "stop"

    def take_chances(self) -> list[TokenChances]:
        """Of the tokens since the last call."""
        taken, self._chances = self._chances, []
        return taken

    def _count(self) -> None:
        metrics = self._model.metrics
        if not self.new_tokens:
            metrics.first_token_seconds += time.perf_counter() - self._arrived
            metrics.first_tokens += 1
        self.new_tokens += 1
        metrics.new_tokens += 1

    def _read(self, ids: Sequence[int]) -> Sequence[int]:
        """Feed all of a long prompt but its last chunk, which is returned."""
        pending = self._model.sequences.begin(0, ids)
        self._model.metrics.cached_tokens += len(ids) - len(pending)
        while len(pending) > _CHUNK and not self._job.ended:
            self._feed(pending[:_CHUNK])
            pending = pending[_CHUNK:]
        return pending if not self._job.ended else pending[:1]

    def _feed(self, ids: Sequence[int]) -> NDArray[np.float32]:
        start = time.perf_counter()
        logits = self._model.sequences.feed({0: ids})
        self._model.metrics.engine_seconds += time.perf_counter() - start
        return logits


def sampling_of(request: GenerationRequest) -> Sampling:
    """How the tokens of a request are chosen; the defaults are those of the interface, the seed a random one."""
    seed = secrets.randbits(63) if request.seed is None else request.seed % 2**64
    return Sampling(
        temperature=1.0 if request.temperature is None else request.temperature,
        seed=seed,
        top_p=1.0 if request.top_p is None else request.top_p,
        presence_penalty=request.presence_penalty or 0.0,
        frequency_penalty=request.frequency_penalty or 0.0,
    )
