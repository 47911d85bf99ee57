"""An exported image classifier in ONNX Runtime, and what tells its folder from that of a language model."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgerazor.core.contracts import ClassifierRuntime, ImageFacts, Runtime
from edgerazor.errors import ExportError, first_line
from edgerazor.plugins.exporters.onnx.folder import CARD, MODEL, read_card
from edgerazor.plugins.exporters.onnx.runtime import OnnxRuntime, engine_name, open_session

_USUAL_SIDE = 224


class OnnxClassifier(ClassifierRuntime):
    """A folder that the exporter `onnx` wrote of an image classifier.

    Args:
        path: of the folder.
        threads: None lets ONNX Runtime choose.

    Raises:
        ExportError: the folder is incomplete, or this ONNX Runtime cannot load the graph.
    """

    def __init__(self, path: str | Path, *, threads: int | None = None):
        self.path, self.name = Path(path), str(path)
        self.engine = engine_name()
        card = read_card(self.path)
        self.recipe: Mapping[str, Any] = card.get("recipe") or {}
        try:
            self.classes, level = int(card["classes"]), int(card["settings"]["accuracy_level"])
        except (KeyError, TypeError, ValueError) as error:
            raise ExportError(f"{self.path}: {CARD} is not as edgerazor writes it: {error!r}") from error
        self._session = open_session(self.path / MODEL, threads, level)
        self.image = self._image()

    def _image(self) -> ImageFacts:
        """By the shape of the graph's input, in which a side of any size has a name."""
        inputs = self._session.get_inputs()
        if len(inputs) != 1 or len(inputs[0].shape) != 4:
            raise ExportError(f"{self.path}: {MODEL} is given no images")
        _, channels, *sides = inputs[0].shape
        free = [not isinstance(side, int) for side in sides]
        height, width = (_USUAL_SIDE if is_free else side for side, is_free in zip(sides, free, strict=True))
        return ImageFacts(channels, height, width, any_size=all(free))

    def classify(self, pixel_values: NDArray[np.float32]) -> NDArray[np.float32]:
        """Logits, by one run of the graph."""
        try:
            (logits,) = self._session.run(None, {self._session.get_inputs()[0].name: pixel_values})
        except Exception as error:  # its exceptions have no base class but this one
            raise ExportError(f"{self.path}: {first_line(error)}") from error
        found: NDArray[np.float32] = logits
        return found

    def close(self) -> None:
        """Drop the session."""
        self._session = None


def open_folder(path: str | Path) -> Runtime | ClassifierRuntime:
    """What runs a folder that the exporter `onnx` wrote, by what its card says of it.

    Raises:
        ExportError: the folder is incomplete, or this ONNX Runtime cannot load the graph.
    """
    return OnnxClassifier(path) if "classes" in read_card(Path(path)) else OnnxRuntime(path)
