"""A Transformers model behind the same interface as an exported one: what the others are compared with."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import DynamicCache, __version__
from transformers.cache_utils import DynamicLayer

from edgerazor.core.contracts import TokenizerRuntime
from edgerazor.models.special_tokens import stop_tokens


class TransformersRuntime(TokenizerRuntime):
    """A causal language model and its tokenizer as a `Runtime`.

    Args:
        model: on the device where it is to run.
        tokenizer: of the model.
        recipe: it was made by, if any.
    """

    def __init__(self, model: Any, tokenizer: Any, recipe: Mapping[str, Any] | None = None):
        self.name = str(getattr(model.config, "name_or_path", "") or "the model")
        self.engine = f"Transformers {__version__}"
        self.recipe: Mapping[str, Any] = dict(recipe or {})
        self._model, self._tokenizer = model.eval(), tokenizer
        self._cache = DynamicCache(config=model.config)
        text_config = model.config.get_text_config()
        self.vocabulary_size = int(text_config.vocab_size)
        self.context_length = int(getattr(text_config, "max_position_embeddings", None) or 1 << 31)
        self.stop_ids = frozenset(stop_tokens(model, tokenizer))

    @property
    def tokenizer(self) -> Any:
        """The tokenizer that came with the model."""
        return self._tokenizer

    def restart(self) -> None:
        """Start with an empty cache."""
        super().restart()
        self._cache = DynamicCache(config=self._model.config)

    def rewind(self, position: int) -> bool:
        """Crop the cache; a layer with a window has forgotten what it would need."""
        if not all(type(layer) is DynamicLayer for layer in self._cache.layers):
            return False
        if position < self.position:  # crop(0) would empty it
            self._cache.crop(position - self.position)
        self.position = position
        return True

    @torch.no_grad()
    def compute(self, ids: Sequence[int], *, every: bool) -> NDArray[np.float32]:
        """float32 logits, by one call of the model."""
        input_ids = torch.tensor([list(ids)], device=self._model.device)
        output = self._model(
            input_ids=input_ids, past_key_values=self._cache, use_cache=True, logits_to_keep=0 if every else 1
        )
        return np.asarray(output.logits[0].float().cpu().numpy())

    def close(self) -> None:
        """Drop model and cache."""
        self._model = self._cache = None
