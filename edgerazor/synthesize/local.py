"""A teacher on this machine, in any engine: dialogues turn by turn, several at a time."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

from jinja2 import TemplateError

from edgerazor.core.registry import Registry
from edgerazor.errors import SynthesisError
from edgerazor.models.load import Models, pick_device
from edgerazor.schemas.model import ModelSection
from edgerazor.schemas.synthesis import SynthesisSettings
from edgerazor.synthesize.drafts import (
    CUT,
    Answer,
    Draft,
    FinishedDialogue,
    Prompt,
    Refusal,
    RefusalError,
    without_thought,
)
from edgerazor.synthesize.engine import Engine, Turn, Written
from edgerazor.synthesize.opening import UserTurn, find_user_turn

_SWITCH = "enable_thinking"
_OPEN_THOUGHT = "<think>"

Check = Callable[[Draft], None]


def load_local_writer(
    settings: SynthesisSettings,
    *,
    registry: Registry,
    batch_size: int,
    use_cpu: bool = False,
    check: Check | None = None,
) -> "LocalWriter":
    """Load `settings.model`: an exported file in its engine; a 16-bit model as stored on CUDA, in float32 on a CPU.

    Raises:
        CheckpointError: it cannot be loaded, or is a quantized model that was not exported.
        ExportError: its engine cannot load it.
    """
    from edgerazor.inference.open_runtime import is_exported, open_runtime

    if is_exported(Path(settings.model), registry):
        from edgerazor.synthesize.runtime_engine import RuntimeEngine

        runtime = open_runtime(settings.model, registry=registry)
        engine: Engine = RuntimeEngine(runtime, settings, batch_size=batch_size)
        return LocalWriter(engine, settings, check=check)
    from edgerazor.synthesize.transformers_engine import TransformersEngine

    models = Models(ModelSection(name_or_path=settings.model), registry)
    model = models.load_teacher(device=pick_device(use_cpu=use_cpu))
    engine = TransformersEngine(model, models.teacher.tokenizer, settings, batch_size=batch_size)
    return LocalWriter(engine, settings, check=check)


class LocalWriter:
    """An engine as a `Writer`; a dialogue that is finished makes room for the next.

    Args:
        engine: without a chat template the contents of a dialogue are put one after the other.
        settings: of the run; with `self_prompted`, prompts may leave the user's turns open.
        check: called after every turn; a RefusalError ends the dialogue.
    """

    def __init__(self, engine: Engine, settings: SynthesisSettings, *, check: Check | None = None):
        self.engine, self._settings = engine, settings
        self._check: Check = check or (lambda draft: None)

    def stop(self) -> None:
        """End at the next token."""
        self.engine.stop()

    def write(self, prompts: Iterable[Prompt]) -> Iterator[FinishedDialogue | Refusal]:
        """See `Writer.write`."""
        waiting, ready, refused = map(Draft, prompts), deque[Draft](), list[Refusal]()

        def take() -> Turn | None:
            while (draft := ready.popleft() if ready else next(waiting, None)) is not None:
                try:
                    return self._turn(draft)
                except RefusalError as error:
                    refused.append(draft.refusal(error))
            return None

        for turn, written in self.engine.run(take, self._length):
            draft = turn.draft
            try:
                draft.add(self._answer(turn, written))
                self._check(draft)
            except RefusalError as error:
                refused.append(draft.refusal(error))
            else:
                if draft.finished:
                    yield draft.written()
                else:
                    ready.append(draft)
            while refused:
                yield refused.pop(0)
        if not self.engine.stopped:
            yield from refused

    def _turn(self, draft: Draft) -> Turn:
        settings = self._settings
        if draft.role == "assistant":
            text, after = self._prompt(draft), ""
            limit, temperature = settings.max_new_tokens, settings.temperature
        else:
            chosen, around = settings.self_prompted, self._user_turn(draft)
            assert chosen is not None
            # A blank before the first word is a part of its token.
            text, after = around.before.rstrip(" "), around.after
            limit, temperature = chosen.question_tokens, chosen.question_temperature
        ids = self.engine.encode(text, rendered=bool(self.engine.template))
        if not ids:
            raise RefusalError("the dialogue has no tokens")
        if len(ids) + limit > self._length:
            raise RefusalError(
                f"{len(ids)} tokens and {limit} new ones do not fit a context of {self._length} positions; "
                "max_new_tokens can be lowered"
            )
        stop_ids, until = self._ends(after)
        begun = _OPEN_THOUGHT if draft.role == "assistant" and text.rstrip().endswith(_OPEN_THOUGHT) else ""
        return Turn(draft, ids, limit, temperature, stop_ids, begun, until)

    def _answer(self, turn: Turn, written: Written) -> Answer:
        text, ended = self.engine.decode(written.ids), written.ended
        if turn.draft.role == "assistant":
            return Answer(without_thought(turn.begun + text), "stop" if ended else CUT)
        if not self.engine.special_ids.isdisjoint(written.ids):
            raise RefusalError("the user's turn holds special tokens", "markup")
        if turn.until is not None and turn.until in text:
            text, ended = text[: text.index(turn.until)], True
        return Answer(text.strip(), "stop" if ended else CUT)

    def _prompt(self, draft: Draft) -> str:
        """The text that the answer follows, thinking off where the template has a switch for it."""
        messages, tools = draft.context(), draft.prompt.tools
        if not self.engine.template:
            return "".join(message["content"] for message in messages)
        try:
            return self.engine.template.render(messages, tools, prompt=True, **self._switch)
        except (TemplateError, TypeError) as error:
            raise RefusalError(f"the chat template refuses this dialogue: {error}") from error

    def _user_turn(self, draft: Draft) -> UserTurn:
        try:
            return find_user_turn(self.engine.template, draft.context(), self._settings.model, **self._switch)
        except SynthesisError as error:
            if any(message["role"] == "assistant" for message in draft.context()):
                raise RefusalError(str(error)) from error
            raise

    def _ends(self, after: str) -> tuple[frozenset[int], str | None]:
        """Tokens, and text, that close a turn behind which the template writes `after`."""
        closing = after.strip()
        if not closing:
            return self.engine.stop_ids, after or None
        first = self.engine.encode(closing, rendered=True)[0]
        if first in self.engine.special_ids:
            return self.engine.stop_ids | {first}, None
        return self.engine.stop_ids, closing.splitlines()[0]

    @cached_property
    def _switch(self) -> dict[str, Any]:
        return {_SWITCH: False} if self.engine.template.mentions(_SWITCH) else {}

    @cached_property
    def _length(self) -> int:
        """Tokens of a dialogue at most: the context, or what a self-prompted one of these settings needs."""
        settings, chosen = self._settings, self._settings.self_prompted
        if chosen is None:
            return self.engine.context_length
        system = [] if settings.system_prompt is None else [{"role": "system", "content": settings.system_prompt}]
        around = find_user_turn(self.engine.template, system, settings.model, **self._switch)
        written = self.engine.encode(around.before + around.after, rendered=True)
        # Words that were written token by token may be more tokens when they are read again.
        length = chosen.turns * (len(written) + 2 * chosen.question_tokens + settings.max_new_tokens)
        return min(length, self.engine.context_length)
