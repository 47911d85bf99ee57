"""What runs an exported model."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class Runtime(Protocol):
    """An exported model, loaded by the engine that it was exported for, with its cache and its own tokenizer.

    Attributes:
        engine: name and version, for people.
        vocabulary_size: width of the logits.
        context_length: at most this many tokens between two `restart`s.
        stop_ids: tokens that end a text.
        recipe: that the model was made by, as it stands in the file; empty if it does not say.
    """

    engine: str
    recipe: Mapping[str, Any]
    vocabulary_size: int
    context_length: int
    stop_ids: frozenset[int]

    def encode(self, text: str, *, chat: bool | None = None) -> list[int]:
        """Token ids of a text; `chat` as in `GenerationSettings`.

        Raises:
            ExportError: `chat` is True and the model has no chat template.
        """

    def decode(self, ids: Sequence[int]) -> str:
        """Text of tokens, special ones left out."""

    def restart(self) -> None:
        """Forget all tokens."""

    def feed(self, ids: Sequence[int], *, every: bool = False) -> "NDArray[np.float32]":
        """Go on by these tokens; logits `[1, vocabulary]` of the last one, or `[len(ids), vocabulary]` of every one.

        Raises:
            ExportError: more tokens than the context holds, or `every` of a file that computes the last one only.
        """

    def close(self) -> None:
        """Give memory back."""
