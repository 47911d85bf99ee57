"""A Transformers model behind the same interface as an exported one: what the others are compared with."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import DynamicCache, __version__

from edgerazor.errors import CheckpointError


class TransformersRuntime:
    """A causal language model and its tokenizer as a `Runtime`.

    Args:
        model: on the device where it is to run.
        tokenizer: of the model.
        recipe: it was made by, if any.
    """

    def __init__(self, model: Any, tokenizer: Any, recipe: Mapping[str, Any] | None = None):
        self.engine = f"Transformers {__version__}"
        self.recipe: Mapping[str, Any] = dict(recipe or {})
        self._model, self._tokenizer = model.eval(), tokenizer
        self._cache = DynamicCache(config=model.config)
        self._position = 0
        text_config = model.config.get_text_config()
        self.vocabulary_size = int(text_config.vocab_size)
        self.context_length = int(getattr(text_config, "max_position_embeddings", None) or 1 << 31)
        self.stop_ids = _stop_ids(model, tokenizer)

    def encode(self, text: str, *, chat: bool | None = None) -> list[int]:
        """Token ids; a message is wrapped by the tokenizer's chat template."""
        return encode_prompt(self._tokenizer, text, chat)

    def decode(self, ids: Sequence[int]) -> str:
        """Text without special tokens."""
        return str(self._tokenizer.decode(list(ids), skip_special_tokens=True))

    def restart(self) -> None:
        """Start with an empty cache."""
        self._cache, self._position = DynamicCache(config=self._model.config), 0

    @torch.no_grad()
    def feed(self, ids: Sequence[int], *, every: bool = False) -> NDArray[np.float32]:
        """float32 logits, as `Runtime.feed`."""
        if self._position + len(ids) > self.context_length:
            raise CheckpointError(
                f"{self._position + len(ids)} tokens do not fit a context of {self.context_length} positions"
            )
        input_ids = torch.tensor([list(ids)], device=self._model.device)
        output = self._model(
            input_ids=input_ids, past_key_values=self._cache, use_cache=True, logits_to_keep=0 if every else 1
        )
        self._position += len(ids)
        return np.asarray(output.logits[0].float().cpu().numpy())

    def close(self) -> None:
        """Drop model and cache."""
        self._model = self._cache = None


def encode_prompt(tokenizer: Any, text: str, chat: bool | None) -> list[int]:
    """Token ids of a text, or of a user's message where `chat` is True, or None and there is a chat template.

    Raises:
        CheckpointError: there is no chat template where one is asked for.
    """
    if chat and not tokenizer.chat_template:
        raise CheckpointError("the tokenizer has no chat template; leave --chat out")
    if chat or (chat is None and tokenizer.chat_template):
        messages = [{"role": "user", "content": text}]
        text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        return list(tokenizer(text, add_special_tokens=False)["input_ids"])
    return list(tokenizer(text)["input_ids"])


def _stop_ids(model: Any, tokenizer: Any) -> frozenset[int]:
    found: set[int] = set()
    for stated in (model.generation_config.eos_token_id, model.config.eos_token_id, tokenizer.eos_token_id):
        found |= set(stated) if isinstance(stated, list) else {stated} if stated is not None else set()
    return frozenset(found)
