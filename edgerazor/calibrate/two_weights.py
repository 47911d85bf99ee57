"""Matrices that are rounded one after another, while the unrounded model is still asked what it gives."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch import Tensor


class TwoWeights:
    """The weights of some layers as they were, and as far as they are rounded; the layers hold the latter.

    Args:
        layers: by name; each computes with the weight that it holds.

    Attributes:
        unrounded: `{name: weight}`.
    """

    def __init__(self, layers: Mapping[str, Any]):
        self._layers, self._rounded = layers, dict[str, Tensor]()
        self.unrounded = {name: layer.weight.data for name, layer in layers.items()}

    def put(self, name: str, values: Tensor) -> None:
        """From now on a layer computes with these values of as many elements."""
        self._rounded[name] = values.view(self.unrounded[name].shape)
        self._layers[name].weight.data = self._rounded[name]

    @contextmanager
    def as_they_were(self) -> Iterator[None]:
        """For the block every layer computes with its unrounded weight."""
        for name in self._rounded:
            self._layers[name].weight.data = self.unrounded[name]
        try:
            yield
        finally:
            for name, values in self._rounded.items():
                self._layers[name].weight.data = values
