"""A teacher on this machine: a Transformers model that answers several dialogues at a time."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import torch
from jinja2 import TemplateError
from transformers import GenerationConfig, LogitsProcessorList, StoppingCriteria, StoppingCriteriaList

from edgerazor.core.registry import Registry
from edgerazor.data.messages import Message
from edgerazor.errors import SynthesisError
from edgerazor.inference.transformers_runtime import TransformersRuntime
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
from edgerazor.synthesize.sampling import RowSampling

_SWITCH = "enable_thinking"
_OPEN_THOUGHT = "<think>"


def load_local_writer(
    settings: SynthesisSettings, *, registry: Registry, batch_size: int, use_cpu: bool = False
) -> "LocalWriter":
    """Load `settings.model`: as stored on CUDA, in float32 on a CPU.

    Raises:
        CheckpointError: it cannot be loaded, or is quantized already.
    """
    models = Models(ModelSection(name_or_path=settings.model), registry)
    model = models.load_teacher(device=pick_device(use_cpu=use_cpu))
    return LocalWriter(model, models.teacher.tokenizer, settings, batch_size=batch_size)


class LocalWriter:
    """A causal language model as a `Writer`; a dialogue that is finished makes room for the next.

    Args:
        model: on the device where it is to run; its generation config is replaced.
        tokenizer: of the model; without a chat template the contents of a dialogue are put one after the other.
        settings: of the run.
        batch_size: dialogues at a time.
    """

    def __init__(self, model: Any, tokenizer: Any, settings: SynthesisSettings, *, batch_size: int):
        runtime = TransformersRuntime(model, tokenizer)
        self._model, self._tokenizer, self._settings, self._batch_size = model, tokenizer, settings, batch_size
        self._context_length, self._stop_ids = runtime.context_length, runtime.stop_ids
        padding = tokenizer.pad_token_id
        self._padding = min(self._stop_ids, default=0) if padding is None else int(padding)
        # The model's own sampling defaults and penalties are not those of the run.
        model.generation_config = GenerationConfig(
            do_sample=False, eos_token_id=sorted(self._stop_ids) or None, pad_token_id=self._padding
        )
        self.stopped = False

    def stop(self) -> None:
        """End at the next token."""
        self.stopped = True

    def write(self, prompts: Iterable[Prompt]) -> Iterator[FinishedDialogue | Refusal]:
        """See `Writer.write`."""
        waiting, drafts = map(Draft, prompts), list[Draft]()
        while drafts := drafts + list(islice(waiting, self._batch_size - len(drafts))):
            turns: list[_Turn] = []
            for draft in drafts:
                try:
                    turns.append(self._turn(draft))
                except RefusalError as error:
                    yield Refusal(draft.prompt, str(error))
            texts = self._generate(turns) if turns else []
            if self.stopped:
                return
            drafts = []
            for turn, (text, ended) in zip(turns, texts, strict=True):
                try:
                    turn.draft.add(Answer(without_thought(turn.begun + text), "stop" if ended else CUT))
                except RefusalError as error:
                    yield Refusal(turn.draft.prompt, str(error))
                    continue
                if turn.draft.finished:
                    yield turn.draft.written()
                else:
                    drafts.append(turn.draft)

    def _turn(self, draft: Draft) -> "_Turn":
        text = self._render(draft.context(), draft.prompt.tools)
        chat = bool(self._tokenizer.chat_template)
        ids = self._tokenizer(text, add_special_tokens=not chat)["input_ids"]
        if not ids:
            raise RefusalError("the dialogue has no tokens")
        if len(ids) + self._settings.max_new_tokens > self._context_length:
            raise RefusalError(
                f"{len(ids)} tokens and {self._settings.max_new_tokens} new ones do not fit a context of "
                f"{self._context_length} positions; max_new_tokens can be lowered"
            )
        return _Turn(draft, ids, _OPEN_THOUGHT if text.rstrip().endswith(_OPEN_THOUGHT) else "")

    def _render(self, messages: list[Message], tools: Sequence[dict[str, Any]] | None) -> str:
        """The text that the answer follows, thinking off where the template has a switch for it."""
        if not self._tokenizer.chat_template:
            return "".join(message["content"] for message in messages)
        listed: Any = list(tools) if tools else None
        switch = {_SWITCH: False} if _SWITCH in self._tokenizer.get_chat_template(tools=listed) else {}
        try:
            text = self._tokenizer.apply_chat_template(
                messages, tools=listed, tokenize=False, add_generation_prompt=True, **switch
            )
        except (TemplateError, TypeError) as error:
            raise RefusalError(f"the chat template refuses this dialogue: {error}") from error
        return str(text)

    def _generate(self, turns: list["_Turn"]) -> list[tuple[str, bool]]:
        """For each turn the new text, and whether the teacher ended it."""
        settings, device = self._settings, self._model.device
        length = max(len(turn.ids) for turn in turns)
        ids = torch.tensor([[self._padding] * (length - len(turn.ids)) + turn.ids for turn in turns], device=device)
        mask = torch.tensor([[0] * (length - len(turn.ids)) + [1] * len(turn.ids) for turn in turns], device=device)
        processors = LogitsProcessorList()
        if settings.temperature > 0:
            processors.append(RowSampling([turn.draft.seed for turn in turns], length, settings, device))
        try:
            with torch.inference_mode():
                output = self._model.generate(
                    input_ids=ids,
                    attention_mask=mask,
                    max_new_tokens=settings.max_new_tokens,
                    logits_processor=processors,
                    stopping_criteria=StoppingCriteriaList([_Stop(self)]),
                )
        except torch.OutOfMemoryError as error:
            raise SynthesisError(
                f"{len(turns)} dialogues at a time do not fit the memory of {device}; choose a smaller batch size"
            ) from error
        return [self._text(row) for row in output[:, length:].tolist()]

    def _text(self, ids: list[int]) -> tuple[str, bool]:
        end = next((index for index, token in enumerate(ids) if token in self._stop_ids), None)
        return str(self._tokenizer.decode(ids[:end], skip_special_tokens=True)), end is not None


@dataclass(frozen=True)
class _Turn:
    """A draft, the tokens its next turn follows, and the tag of a thought that the template opened."""

    draft: Draft
    ids: list[int]
    begun: str


class _Stop(StoppingCriteria):
    """Ends all rows when the writer was told to stop."""

    def __init__(self, writer: LocalWriter):
        self._writer = writer

    def __call__(self, input_ids: Any, scores: Any, **kwargs: Any) -> Any:
        return torch.full((len(input_ids),), self._writer.stopped, device=input_ids.device)
