"""What runs an exported model."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from edgerazor.core.contracts.sequences import Sequences, common_beginning
from edgerazor.core.contracts.videos import VideoMessage
from edgerazor.errors import ExportError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

NEEDED_FOR_VIDEOS = "videos need the thinker of a Qwen2.5-Omni, packed or in 16 bit"


class Runtime(ABC):
    """A language model, loaded by the engine that it was exported for, with its cache and its own tokenizer.

    A subclass turns texts into tokens and tokens into logits; this class decides which texts are messages, counts
    tokens, and refuses those that do not fit the context.

    Attributes:
        name: of the model in messages, such as its path.
        engine: name and version, for people.
        vocabulary_size: width of the logits.
        context_length: at most this many tokens between two `restart`s.
        stop_ids: tokens that end a text.
        recipe: that the model was made by, as it stands in the file; empty if it does not say.
        position: tokens since the last `restart`.
    """

    name: str
    engine: str
    recipe: Mapping[str, Any]
    vocabulary_size: int
    context_length: int
    stop_ids: frozenset[int]
    position: int = 0

    @abstractmethod
    def has_chat_template(self) -> bool:
        """Whether the model's tokenizer knows how a message is written."""

    @abstractmethod
    def encode_text(self, text: str) -> list[int]:
        """Token ids of a text, with the special tokens that are put around any text."""

    @abstractmethod
    def encode_message(self, text: str) -> list[int]:
        """Token ids of a user's message by the chat template, up to where the answer begins."""

    @property
    def chat_template(self) -> str | None:
        """Jinja text of the model's chat template; None: it has none, or the runtime does not give it."""
        return None

    @property
    def special_tokens(self) -> Mapping[str, str]:
        """What a chat template calls tokens by, such as `bos_token`, and their texts."""
        return {}

    @property
    def special_ids(self) -> frozenset[int]:
        """Tokens that are markup, not text."""
        return self.stop_ids

    def encode_rendered(self, text: str) -> list[int]:
        """Token ids of what a chat template made: its special tokens are read as such, and none are added.

        Raises:
            ExportError: the runtime cannot do that.
        """
        raise ExportError(f"{self.name}: its engine encodes single messages alone")

    def open_sequences(self, count: int, length: int) -> Sequences:
        """A cache for up to `count` texts of up to `length` tokens that are written side by side; here for one."""
        return OneSequence(self)

    def score_side_by_side(
        self, contexts: Sequence[Sequence[int]], rests: Sequence[tuple[int, Sequence[int]]]
    ) -> "tuple[NDArray[np.float32], list[NDArray[np.float32]]] | None":
        """Logits behind several contexts at once, and those of tokens that go on from them.

        The cache of `feed` is not touched.

        Args:
            contexts: one token or more each.
            rests: number of the context that the tokens go on from, and the tokens, maybe none.

        Returns:
            `[contexts, vocabulary]` of each context's last token, and `[tokens, vocabulary]` of each rest; None: the
            engine reads one text at a time.
        """
        return None

    def check_videos(self) -> None:
        """Raise ExportError, with the reason, if this runtime cannot read a message that shows a video."""
        raise ExportError(f"{self.name}: {self.engine} reads text alone here; {NEEDED_FOR_VIDEOS}")

    def read_video(self, message: VideoMessage) -> "NDArray[np.float32]":
        """Logits `[vocabulary]` where the answer to a message with a video begins; the cache of `feed` is not touched.

        Raises:
            ExportError: as `check_videos`, or the message does not fit the context.
        """
        self.check_videos()
        raise NotImplementedError

    @abstractmethod
    def decode(self, ids: Sequence[int]) -> str:
        """Text of tokens, special ones left out."""

    @abstractmethod
    def compute(self, ids: Sequence[int], *, every: bool) -> "NDArray[np.float32]":
        """Logits of tokens that fit the context, as `feed` returns them; `position` is still what it was before them.

        Raises:
            ExportError: the engine fails, or computes the last position only and `every` is asked for.
        """

    @abstractmethod
    def close(self) -> None:
        """Free the memory of the model; it cannot be used afterwards."""

    def encode(self, text: str, *, chat: bool | None = None) -> list[int]:
        """Token ids of a text, or of a user's message if `chat` is True, or None and there is a chat template.

        Raises:
            ExportError: `chat` is True and the model has no chat template.
        """
        known = self.has_chat_template()
        if chat and not known:
            raise ExportError(f"{self.name}: has no chat template; leave --chat out")
        as_message = known if chat is None else chat
        return self.encode_message(text) if as_message else self.encode_text(text)

    def feed(self, ids: Sequence[int], *, every: bool = False) -> "NDArray[np.float32]":
        """Read tokens after those before; logits `[1, vocabulary]` of the last, or `[len(ids), vocabulary]` of all.

        Raises:
            ExportError: more tokens than the context holds, or `every` of a file that computes the last one only.
        """
        total = self.position + len(ids)
        if total > self.context_length:
            raise ExportError(f"{self.name}: {total} tokens do not fit a context of {self.context_length}")
        logits = self.compute(ids, every=every)
        self.position = total
        return logits

    def restart(self) -> None:
        """Forget all tokens; a subclass whose cache must be emptied does so here."""
        self.position = 0

    def rewind(self, position: int) -> bool:
        """Forget the tokens behind the first `position`; False: the engine cannot, and nothing has changed.

        A subclass that can overrides this and sets `position`.
        """
        return False


class TokenizerRuntime(Runtime):
    """A runtime that reads and writes texts by a tokenizer of transformers, which a subclass gives as `tokenizer`."""

    @property
    @abstractmethod
    def tokenizer(self) -> Any:
        """The tokenizer.

        Raises:
            ExportError: it cannot be loaded.
        """

    def has_chat_template(self) -> bool:
        return bool(self.tokenizer.chat_template)

    def encode_text(self, text: str) -> list[int]:
        return list(self.tokenizer(text)["input_ids"])

    def encode_message(self, text: str) -> list[int]:
        messages = [{"role": "user", "content": text}]
        return self.encode_rendered(
            self.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        )

    @property
    def chat_template(self) -> str | None:
        return str(self.tokenizer.get_chat_template()) if self.tokenizer.chat_template else None

    @property
    def special_tokens(self) -> Mapping[str, str]:
        return dict(self.tokenizer.special_tokens_map)

    @property
    def special_ids(self) -> frozenset[int]:
        added = self.tokenizer.added_tokens_decoder.items()
        return self.stop_ids | {number for number, token in added if token.special}

    def encode_rendered(self, text: str) -> list[int]:
        return list(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def decode(self, ids: Sequence[int]) -> str:
        return str(self.tokenizer.decode(list(ids), skip_special_tokens=True))


class OneSequence(Sequences):
    """A runtime that holds one text at a time.

    Args:
        runtime: is restarted for every text.

    Attributes:
        keeps: what two texts begin with alike is not read again, where the runtime can go back. The logits may then
            differ in their last bits from those of a text that is read in one go.
    """

    keeps = False

    def __init__(self, runtime: Runtime):
        self.count, self.length, self._runtime = 1, runtime.context_length, runtime
        self._held: list[int] = []

    def begin(self, number: int, ids: Sequence[int]) -> Sequence[int]:
        """Forget the text before, or what follows its beginning."""
        kept = common_beginning(self._held, ids) if self.keeps and self._runtime.position == len(self._held) else 0
        if not kept or not self._runtime.rewind(kept):
            self._runtime.restart()
            kept = 0
        del self._held[kept:]
        return ids[kept:]

    def feed(self, steps: Mapping[int, Sequence[int]]) -> "NDArray[np.float32]":
        """As `Runtime.feed`."""
        (ids,) = steps.values()
        logits = self._runtime.feed(ids)
        self._held += ids
        return logits

    def close(self) -> None:
        """Nothing is held beside the runtime."""
