"""Codes that were found elsewhere than by a quantizer, in the place of one."""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from edgerazor.core.contracts import Quantizer
from edgerazor.core.tensor import QuantizedTensor
from edgerazor.errors import CheckpointError


class StoredCodes(Quantizer):
    """The codes of one weight, whatever quantizer the recipe names for it.

    Args:
        name: of the weight, for messages.
        read: gives codes and scales.
    """

    rows_independent = False  # a part of the weight has no codes of its own

    def __init__(self, name: str, read: Callable[[], QuantizedTensor]):
        self._name, self._read = name, read

    def check_shape(self, shape: tuple[int, ...]) -> None:
        """Any: the weight is given."""

    def widths(self, shape: tuple[int, ...]) -> Mapping[int, int]:
        """As the codes are; `shape` is the weight's."""
        values, counts = self._read().widest_qmax().unique(return_counts=True)
        return {int(value): int(count) * shape[-1] for value, count in zip(values, counts, strict=True)}

    def quantize(self, x: Tensor) -> QuantizedTensor:
        """The codes, which have to give `x`, to the bit.

        Raises:
            CheckpointError: they do not.
        """
        stored = self._read()
        if stored.codes.shape != x.shape or not torch.equal(stored.dequantize(x.dtype), x):
            raise CheckpointError(f"{self._name}: codes and scales do not give the values of the weight")
        return stored
