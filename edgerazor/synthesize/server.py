"""A teacher behind the OpenAI protocol: vLLM, llama.cpp's server and their like."""

from collections.abc import Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import Any

from edgerazor.errors import SynthesisError
from edgerazor.schemas.synthesis import SynthesisSettings
from edgerazor.synthesize.connection import (
    Connection,
    ServerAddress,
    StatusError,
    StoppedError,
    shortened,
)
from edgerazor.synthesize.drafts import (
    Answer,
    Draft,
    FinishedDialogue,
    Prompt,
    Refusal,
    RefusalError,
    without_thought,
)

_LOOK_UP_SECONDS = 0.1
_Outcome = Future[FinishedDialogue | Refusal]
_REFUSED = frozenset({400, 413, 422})
_ABSENT = frozenset({404, 405, 501})

# Servers add filters and penalties of their own, each by another name; sampling is as the settings say and no more.
_NEUTRAL = {"min_p": 0.0, "repetition_penalty": 1.0, "repeat_penalty": 1.0}


def find_model(address: ServerAddress, model: str | None) -> str:
    """The model to ask for: the one given, or the only one that the server offers.

    Raises:
        SynthesisError: the server cannot be reached, wants another key, or offers several models or none.
    """
    try:
        listed = Connection(address).exchange("GET", "/models", patient=False)
    except StatusError as error:
        if model is None or error.status not in _ABSENT:
            raise
        return model
    if model is not None:
        return model
    entries = listed.get("data") if isinstance(listed, dict) else None
    names = [entry["id"] for entry in entries or [] if isinstance(entry, dict) and isinstance(entry.get("id"), str)]
    if len(names) != 1:
        offered = f"offers {', '.join(names)}" if names else "does not say which models it offers"
        raise SynthesisError(f"{address.base_url}: the server {offered}; choose a model by name")
    return str(names[0])


class ServerWriter:
    """An OpenAI-compatible server as a `Writer`.

    Args:
        address: of the server.
        settings: of the run.
        concurrency: dialogues at a time; the turns of one are asked one after the other.

    Raises:
        SynthesisError: see `Connection`.
    """

    def __init__(self, address: ServerAddress, settings: SynthesisSettings, *, concurrency: int):
        self._connection = Connection(address)
        self._settings, self._concurrency = settings, concurrency

    def stop(self) -> None:
        """Break off all requests."""
        self._connection.stop()

    def write(self, prompts: Iterable[Prompt]) -> Iterator[FinishedDialogue | Refusal]:
        """See `Writer.write`."""
        running: set[_Outcome] = set()
        with ThreadPoolExecutor(self._concurrency, thread_name_prefix="synthesize") as pool:
            try:
                for prompt in prompts:
                    running.add(pool.submit(self._dialogue, prompt))
                    if len(running) >= self._concurrency:
                        done, running = _first_finished(running)
                        yield from _outcomes(done)
                    if self._connection.stopped:
                        break
                while running:
                    done, running = _first_finished(running)
                    yield from _outcomes(done)
            finally:
                self.stop()

    def _dialogue(self, prompt: Prompt) -> FinishedDialogue | Refusal:
        draft = Draft(prompt)
        try:
            while not draft.finished:
                draft.add(self._ask(draft))
        except RefusalError as error:
            return Refusal(prompt, str(error))
        return draft.written()

    def _ask(self, draft: Draft) -> Answer:
        try:
            answer = self._connection.exchange("POST", "/chat/completions", self._body(draft))
        except StatusError as error:
            if error.status in _REFUSED:
                raise RefusalError(str(error)) from error
            hint = "; does the address end in /v1?" if error.status == 404 else ""
            raise SynthesisError(f"{error}{hint}") from error
        return self._parsed(answer)

    def _body(self, draft: Draft) -> dict[str, Any]:
        settings = self._settings
        body: dict[str, Any] = {
            "model": settings.model,
            "messages": draft.context(),
            "max_tokens": settings.max_new_tokens,
            "temperature": settings.temperature,
            "top_p": settings.top_p,
            "seed": draft.seed,
        }
        if draft.prompt.tools:
            body["tools"] = list(draft.prompt.tools)
        if settings.standard_only:
            return body
        switch = {"enable_thinking": False}
        return {**body, "top_k": settings.top_k, **_NEUTRAL, "chat_template_kwargs": switch}

    def _parsed(self, answer: Any) -> Answer:
        try:
            choice = answer["choices"][0]
            message, reason = choice["message"], choice.get("finish_reason")
            text = message["content"]
        except (LookupError, TypeError, AttributeError) as error:
            raise SynthesisError(
                f"{self._connection.address.base_url}: the answer holds no choices[0].message.content, which the API "
                f"promises: {shortened(str(answer))}"
            ) from error
        if not isinstance(text, str):
            raise RefusalError(f"the server answered without text (finish_reason {reason!r}): {shortened(str(answer))}")
        # A lone half of a surrogate pair, which JSON can hold, is no character.
        text = text.encode("utf-8", "replace").decode()
        return Answer(without_thought(text), reason if isinstance(reason, str) else "unknown")


def _first_finished(running: set[_Outcome]) -> tuple[set[_Outcome], set[_Outcome]]:
    """Those that are finished, at least one, and the others.

    A signal that arrives just before a thread begins to wait does not end the waiting, so its handler would run only
    when a dialogue is finished.
    """
    done: set[_Outcome] = set()
    while not done:
        done, running = wait(running, timeout=_LOOK_UP_SECONDS, return_when=FIRST_COMPLETED)
    return done, running


def _outcomes(done: set[_Outcome]) -> Iterator[FinishedDialogue | Refusal]:
    """What finished: dialogues first, since a refusal or an error behind them may end the run."""
    errors = [error for future in done if (error := future.exception()) is not None]
    outcomes = [future.result() for future in done if future.exception() is None]
    yield from sorted(outcomes, key=lambda outcome: isinstance(outcome, Refusal))
    for error in errors:
        if not isinstance(error, StoppedError):
            raise error
