"""A file in its own engine: texts side by side, where a finished one makes room for the next at once."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from edgerazor.core.contracts import Runtime, Sequences
from edgerazor.data.template import ChatTemplate
from edgerazor.schemas.synthesis import SynthesisSettings
from edgerazor.synthesize.drafts import Draft
from edgerazor.synthesize.engine import Engine, Turn, Written
from edgerazor.synthesize.sampling import TokenSampler, random_numbers


class RuntimeEngine(Engine):
    """Any `Runtime`; one that holds several texts writes them in one batch (continuous batching).

    Args:
        runtime: a loaded model.
        settings: of sampling.
        batch_size: texts at a time, where the runtime can.
    """

    def __init__(self, runtime: Runtime, settings: SynthesisSettings, *, batch_size: int):
        self._runtime, self._batch_size, self._sampler = runtime, batch_size, TokenSampler(settings)
        self.template = ChatTemplate.of(runtime)
        self.context_length = runtime.context_length
        self.stop_ids, self.special_ids = runtime.stop_ids, runtime.special_ids

    def encode(self, text: str, *, rendered: bool) -> list[int]:
        """See `Engine.encode`."""
        return self._runtime.encode_rendered(text) if rendered else self._runtime.encode_text(text)

    def decode(self, ids: Sequence[int]) -> str:
        """See `Engine.decode`."""
        return self._runtime.decode(ids)

    def run(self, take: Callable[[], Turn | None], length: int) -> Iterator[tuple[Turn, Written]]:
        """See `Engine.run`."""
        sequences = self._runtime.open_sequences(self._batch_size, min(length, self.context_length))
        try:
            yield from self._run(take, sequences)
        finally:
            sequences.close()

    def _run(self, take: Callable[[], Turn | None], sequences: Sequences) -> Iterator[tuple[Turn, Written]]:
        free, running = list(range(sequences.count)), dict[int, _Running]()
        last = dict[int, Draft]()
        while not self.stopped:
            while free and (turn := take()) is not None:
                # Where the earlier turns of the same dialogue were written, their tokens need not be read again.
                number = next((place for place in free if last.get(place) is turn.draft), free[0])
                free.remove(number)
                last[number] = turn.draft
                numbers = random_numbers(turn.draft.seed, turn.max_new_tokens)
                running[number] = _Running(turn, numbers, sequences.begin(number, turn.ids))
            if not running:
                return
            logits = sequences.feed({number: text.pending for number, text in running.items()})
            drawn = torch.stack([text.numbers[len(text.new)] for text in running.values()])
            temperatures = torch.tensor([text.turn.temperature for text in running.values()])
            tokens = self._sampler.choose(torch.from_numpy(logits), drawn, temperatures).tolist()
            self.new_tokens += len(tokens)
            finished = [number for number, token in zip(running, tokens, strict=True) if running[number].add(token)]
            for number in finished:
                text = running.pop(number)
                free.append(number)
                yield text.turn, Written.cut_at(text.new, text.turn)


@dataclass
class _Running:
    """A turn under way: `pending` tokens were not fed yet."""

    turn: Turn
    numbers: Tensor
    pending: Sequence[int]
    new: list[int] = field(default_factory=list)

    def add(self, token: int) -> bool:
        """Take the next token; True: it was the last."""
        self.new.append(token)
        self.pending = [token]
        return token in self.turn.stop_ids or len(self.new) >= self.turn.max_new_tokens
