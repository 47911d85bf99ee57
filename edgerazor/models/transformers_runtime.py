"""A Transformers model behind the same interface as an exported one: what the others are compared with."""

import inspect
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import DynamicCache, __version__
from transformers.cache_utils import DynamicLayer

from edgerazor.core.contracts import TokenizerRuntime, VideoMessage
from edgerazor.core.contracts.runtime import NEEDED_FOR_VIDEOS
from edgerazor.errors import ExportError
from edgerazor.models.special_tokens import stop_tokens


class TransformersRuntime(TokenizerRuntime):
    """A causal language model and its tokenizer as a `Runtime`.

    Args:
        model: on the device where it is to run.
        tokenizer: of the model.
        recipe: it was made by, if any.
        folder: of the model, or its hub name, where its image processor is looked for if a video is to be read.
    """

    def __init__(
        self, model: Any, tokenizer: Any, recipe: Mapping[str, Any] | None = None, *, folder: str | None = None
    ):
        self.name = str(getattr(model.config, "name_or_path", "") or "the model")
        self.engine = f"Transformers {__version__}"
        self.recipe: Mapping[str, Any] = dict(recipe or {})
        self._model, self._tokenizer, self._folder = model.eval(), tokenizer, folder
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
        logits = output.logits[0] if every else output.logits[0, -1:]  # a model around another heeds no logits_to_keep
        return np.asarray(logits.float().cpu().numpy())

    @torch.no_grad()
    def score_side_by_side(
        self, contexts: Sequence[Sequence[int]], rests: Sequence[tuple[int, Sequence[int]]]
    ) -> tuple[NDArray[np.float32], list[NDArray[np.float32]]] | None:
        """The contexts in one call, padded on the left; then all rests in one, each behind the cache of its context.

        None for models with windows or recurrent states, and for those that are not told positions.
        """
        cache = DynamicCache(config=self._model.config)
        plain = all(type(layer) is DynamicLayer for layer in cache.layers)
        if not plain or "position_ids" not in inspect.signature(self._model.forward).parameters:
            return None
        device = self._model.device
        ids, mask = _pad(contexts, device, left=True)
        last = self._model(
            input_ids=ids,
            attention_mask=mask,
            position_ids=(mask.cumsum(-1) - 1).clamp(min=0),
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        ).logits[:, -1]
        following = [np.zeros((0, self.vocabulary_size), np.float32)] * len(rests)
        filled = [index for index, (_, rest) in enumerate(rests) if rest]
        if filled:
            rows = torch.tensor([rests[index][0] for index in filled], device=device)
            cache.batch_select_indices(rows)
            ids, behind = _pad([rests[index][1] for index in filled], device)
            logits = self._model(
                input_ids=ids,
                attention_mask=torch.cat([mask[rows], behind], dim=1),
                position_ids=mask[rows].sum(-1, keepdim=True) + torch.arange(ids.shape[1], device=device),
                past_key_values=cache,
                use_cache=True,
            ).logits
            for row, index in zip(logits, filled, strict=True):
                following[index] = np.asarray(row[: len(rests[index][1])].float().cpu().numpy())
        return np.asarray(last.float().cpu().numpy()), following

    def check_videos(self) -> None:
        """Raise ExportError if the model has no eyes, or no image processor lies beside it."""
        if "video_second_per_grid" not in inspect.signature(self._model.forward).parameters:
            kind = self._model.config.model_type
            raise ExportError(f"{self.name}: a model of the type '{kind}' reads text alone here; {NEEDED_FOR_VIDEOS}")
        _ = self._videos

    @cached_property
    def _videos(self) -> Any:
        from edgerazor.models.video_inputs import VideoInputs

        return VideoInputs(self._folder or self.name, self._model.config, self._tokenizer)

    @torch.no_grad()
    def read_video(self, message: VideoMessage) -> NDArray[np.float32]:
        """By one call of the model, of which the last position alone goes through the head."""
        self.check_videos()
        inputs = self._videos.build(message)
        count = inputs["input_ids"].shape[1]
        if count > self.context_length:
            raise ExportError(
                f"{self.name}: video and question are {count} tokens, the context holds {self.context_length}; "
                "take fewer frames or pixels"
            )
        model = self._model
        inputs["pixel_values_videos"] = inputs["pixel_values_videos"].to(model.dtype)
        inputs = {name: value.to(model.device) for name, value in inputs.items()}
        hidden = model.model(**inputs, use_cache=False).last_hidden_state
        model.model.rope_deltas = None  # or the positions of the next text would be shifted like this one's
        return np.asarray(model.get_output_embeddings()(hidden[:, -1:])[0, 0].float().cpu().numpy())

    def close(self) -> None:
        """Drop model and cache."""
        self._model = self._cache = None


def _pad(rows: Sequence[Sequence[int]], device: torch.device, *, left: bool = False) -> tuple[Tensor, Tensor]:
    """Token ids and a mask of those that are none of the padding, int64 `[rows, longest]` each."""
    longest = max(map(len, rows))
    ids, mask = torch.zeros(2, len(rows), longest, dtype=torch.int64)
    for index, row in enumerate(rows):
        place = slice(longest - len(row), None) if left else slice(len(row))
        ids[index, place], mask[index, place] = torch.tensor(list(row)), 1
    return ids.to(device), mask.to(device)
