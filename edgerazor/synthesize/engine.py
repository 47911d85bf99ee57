"""What continues texts, several at a time: a model in Transformers, or a file in its own engine."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from edgerazor.data.template import ChatTemplate
from edgerazor.synthesize.drafts import Draft


@dataclass(frozen=True)
class Turn:
    """A turn to be written.

    Attributes:
        draft: whose turn it is.
        ids: tokens that it follows.
        max_new_tokens: of the turn, at most.
        temperature: of sampling; 0: the likeliest token each time.
        stop_ids: tokens that end it.
        begun: what the template wrote of it already, such as the tag of a thought.
        until: text that ends it where the template closes it without a token of its own; None: there is none.
    """

    draft: Draft
    ids: Sequence[int]
    max_new_tokens: int
    temperature: float
    stop_ids: frozenset[int]
    begun: str = ""
    until: str | None = None


@dataclass(frozen=True)
class Written:
    """New tokens without the one that ended them; `ended` is False where the limit did."""

    ids: list[int]
    ended: bool

    @classmethod
    def cut_at(cls, ids: Sequence[int], turn: Turn) -> "Written":
        """What belongs to the turn of the tokens that followed it."""
        ids = ids[: turn.max_new_tokens]
        end = next((index for index, token in enumerate(ids) if token in turn.stop_ids), None)
        return cls(list(ids[:end]), end is not None)


class Engine(ABC):
    """A loaded model.

    Attributes:
        template: its chat template; false where it has none.
        context_length: positions.
        stop_ids: tokens that end a text.
        special_ids: tokens that are markup, not text.
        new_tokens: written so far.
        stopped: `run` is to end.
    """

    template: ChatTemplate
    context_length: int
    stop_ids: frozenset[int]
    special_ids: frozenset[int]
    new_tokens: int = 0
    stopped: bool = False

    @abstractmethod
    def encode(self, text: str, *, rendered: bool) -> list[int]:
        """Token ids; `rendered` text, which a chat template made, holds its special tokens already."""

    @abstractmethod
    def decode(self, ids: Sequence[int]) -> str:
        """Text of tokens, special ones left out."""

    @abstractmethod
    def run(self, take: Callable[[], Turn | None], length: int) -> Iterator[tuple[Turn, Written]]:
        """Write turns until there is none to take and none under way; each is yielded when it is finished.

        Args:
            take: gives the next turn; None: there is none for now.
            length: tokens that a turn has at most, with all that it follows.

        Raises:
            EdgeRazorError: the engine cannot go on.
        """

    def stop(self) -> None:
        """End at the next token."""
        self.stopped = True
