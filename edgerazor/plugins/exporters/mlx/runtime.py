"""An exported folder in mlx_lm."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgerazor.errors import ExportError, first_line
from edgerazor.plugins.exporters.common import read_json
from edgerazor.plugins.exporters.folder_runtime import FolderRuntime
from edgerazor.plugins.exporters.hugging_face import CONFIG
from edgerazor.plugins.exporters.mlx.engine import ENGINE, load_model, make_prompt_cache, mx, without_compiler
from edgerazor.plugins.exporters.mlx.rotary import positions_of_one_rotation
from edgerazor.plugins.exporters.mlx.write import CARD
from edgerazor.plugins.exporters.token_ids import stop_ids

_BATCH = 256


class MLXRuntime(FolderRuntime):
    """A folder that the exporter `mlx` wrote.

    Args:
        path: of the folder.

    Raises:
        ExportError: the folder is damaged, or this mlx_lm cannot load it.
    """

    def __init__(self, path: str | Path):
        self.path, self.name, self.engine = Path(path), str(path), ENGINE
        self.recipe: Mapping[str, Any] = read_json(self.path / CARD).get("recipe") or {}
        config = read_json(self.path / CONFIG)
        try:
            self.vocabulary_size = int(config["vocab_size"])
            positions = int(config["max_position_embeddings"])
            self.context_length = positions_of_one_rotation(config.get("rope_scaling"), positions)
        except (KeyError, TypeError, ValueError) as error:
            raise ExportError(f"{self.path / CONFIG}: is not as edgerazor writes it: {error!r}") from error
        self.stop_ids = frozenset(stop_ids(self.path, self.vocabulary_size))
        try:
            with without_compiler():
                self._model, _ = load_model(self.path)
        except Exception as error:  # whatever a class of mlx_lm stumbles over
            raise ExportError(f"{self.path}: {ENGINE} cannot load it: {first_line(error)}") from error
        self._cache: Any = make_prompt_cache(self._model)

    def restart(self) -> None:
        """Start with an empty cache."""
        super().restart()
        self._cache = make_prompt_cache(self._model)

    def compute(self, ids: Sequence[int], *, every: bool) -> NDArray[np.float32]:
        """float32 logits; long inputs go through 256 tokens at a time."""
        found = []
        with without_compiler():
            for start in range(0, len(ids), _BATCH):
                batch = list(ids[start : start + _BATCH])
                if max(batch) >= self.vocabulary_size:  # MLX would read beyond the embedding
                    raise ExportError(f"{self.path}: token {max(batch)} is none of {self.vocabulary_size}")
                found.append(self._run(batch, every=every))
        return np.concatenate(found) if every else found[-1]

    def _run(self, batch: list[int], *, every: bool) -> NDArray[np.float32]:
        try:
            logits = self._model(mx.array([batch]), cache=self._cache)[0]
            return np.array((logits if every else logits[-1:]).astype(mx.float32))
        except Exception as error:
            raise ExportError(f"{self.path}: {ENGINE} cannot run it: {first_line(error)}") from error

    def close(self) -> None:
        """Drop model and cache."""
        self._model = self._cache = None
