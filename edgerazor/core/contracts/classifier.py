"""What runs an exported image classifier."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from edgerazor.core.contracts.facts import ImageFacts


class ClassifierRuntime(ABC):
    """An image classifier, loaded by the engine that it was exported for.

    Attributes:
        name: of the model in messages, such as its path.
        engine: name and version, for people.
        classes: width of the logits.
        image: what it is given.
        recipe: that the model was made by, as it stands in the file; empty if it does not say.
    """

    name: str
    engine: str
    classes: int
    image: "ImageFacts"
    recipe: Mapping[str, Any]

    @abstractmethod
    def classify(self, pixel_values: "NDArray[np.float32]") -> "NDArray[np.float32]":
        """Logits `[batch, classes]` of images `[batch, channels, height, width]`, as an image processor makes them.

        Raises:
            ExportError: the engine fails, or the images have another shape than the model is given.
        """

    @abstractmethod
    def close(self) -> None:
        """Free the memory of the model; it cannot be used afterwards."""
