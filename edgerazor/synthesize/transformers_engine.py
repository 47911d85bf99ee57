"""A model in Transformers: as many turns at a time as a batch holds."""

from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import Any

import torch
from transformers import GenerationConfig, LogitsProcessorList, StoppingCriteria, StoppingCriteriaList

from edgerazor.data.template import ChatTemplate
from edgerazor.errors import SynthesisError
from edgerazor.models.transformers_runtime import TransformersRuntime
from edgerazor.schemas.synthesis import SynthesisSettings
from edgerazor.synthesize.engine import Engine, Turn, Written
from edgerazor.synthesize.sampling import RowSampling, TokenSampler, numbers_of


class TransformersEngine(Engine):
    """Turns of one batch end together; those that are finished make room for others in the next.

    Args:
        model: on the device where it is to run; its generation config is replaced.
        tokenizer: of the model.
        settings: of sampling.
        batch_size: turns at a time.
    """

    def __init__(self, model: Any, tokenizer: Any, settings: SynthesisSettings, *, batch_size: int):
        runtime = TransformersRuntime(model, tokenizer)
        self._model, self._tokenizer, self._settings, self._batch_size = model, tokenizer, settings, batch_size
        self.template = ChatTemplate(tokenizer)
        self.context_length = runtime.context_length
        self.stop_ids, self.special_ids = runtime.stop_ids, runtime.special_ids
        padding = tokenizer.pad_token_id
        self._padding = min(self.stop_ids, default=0) if padding is None else int(padding)
        # The model's own sampling defaults and penalties are not those of the run.
        model.generation_config = GenerationConfig(do_sample=False, pad_token_id=self._padding)

    def encode(self, text: str, *, rendered: bool) -> list[int]:
        """See `Engine.encode`."""
        return list(self._tokenizer(text, add_special_tokens=not rendered)["input_ids"])

    def decode(self, ids: Sequence[int]) -> str:
        """See `Engine.decode`."""
        return str(self._tokenizer.decode(list(ids), skip_special_tokens=True))

    def run(self, take: Callable[[], Turn | None], length: int) -> Iterator[tuple[Turn, Written]]:
        """See `Engine.run`; turns that are stopped half-way are not yielded."""
        while turns := list(islice(iter(take, None), self._batch_size)):
            written = self._generate(turns)
            if self.stopped:
                return
            self.new_tokens += sum(len(text.ids) + text.ended for text in written)
            yield from zip(turns, written, strict=True)

    def _generate(self, turns: list[Turn]) -> list[Written]:
        device, length = self._model.device, max(len(turn.ids) for turn in turns)
        steps = max(turn.max_new_tokens for turn in turns)
        ids = [[self._padding] * (length - len(turn.ids)) + list(turn.ids) for turn in turns]
        mask = [[0] * (length - len(turn.ids)) + [1] * len(turn.ids) for turn in turns]
        numbers = numbers_of([turn.draft.seed for turn in turns], steps).to(device)
        temperatures = torch.tensor([turn.temperature for turn in turns], device=device)
        sampling = RowSampling(numbers, temperatures, length, TokenSampler(self._settings))
        try:
            with torch.inference_mode():
                output = self._model.generate(
                    input_ids=torch.tensor(ids, device=device),
                    attention_mask=torch.tensor(mask, device=device),
                    max_new_tokens=steps,
                    logits_processor=LogitsProcessorList([sampling]),
                    stopping_criteria=StoppingCriteriaList([_Ends(self, turns, length)]),
                )
        except torch.OutOfMemoryError as error:
            raise SynthesisError(
                f"{len(turns)} dialogues at a time do not fit the memory of {device}; choose a smaller batch size"
            ) from error
        return [Written.cut_at(row, turn) for row, turn in zip(output[:, length:].tolist(), turns, strict=True)]


class _Ends(StoppingCriteria):
    """Ends each row at its own token or its own limit, and all of them when the engine was told to stop."""

    def __init__(self, engine: Engine, turns: list[Turn], prompt_length: int):
        self._engine, self._turns, self._prompt_length = engine, turns, prompt_length

    def __call__(self, input_ids: Any, scores: Any, **kwargs: Any) -> Any:
        count = input_ids.shape[1] - self._prompt_length
        ended = [
            self._engine.stopped or token in turn.stop_ids or count >= turn.max_new_tokens
            for token, turn in zip(input_ids[:, -1].tolist(), self._turns, strict=True)
        ]
        return torch.tensor(ended, device=input_ids.device)
