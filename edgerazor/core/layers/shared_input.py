"""Inputs that several packed layers share, quantized once: q, k and v get the same tensor, so do gate and up."""

from typing import Any
from weakref import ref

import torch
from torch import Tensor

from edgerazor.core.contracts import Quantizer


class SharedInput:
    """What quantizes the inputs of a model's packed layers; the last values are given again for the same tensor.

    Args:
        quantizer: of the inputs.
    """

    def __init__(self, quantizer: Quantizer):
        self.quantizer = quantizer
        self._source: ref[Tensor] | None = None
        self._version = 0
        self._values: Tensor | None = None

    def __call__(self, x: Tensor) -> Tensor:
        """`quantizer.fake_quantize(x)`; kept only where no gradient is asked for."""
        # A tensor made in inference mode counts no versions, so it is never taken for unchanged.
        if x.is_inference() or (torch.is_grad_enabled() and x.requires_grad):
            return self.quantizer.fake_quantize(x)
        if self._values is None or self._source is None or self._source() is not x or self._version != x._version:
            self._source, self._version, self._values = ref(x), x._version, self.quantizer.fake_quantize(x)
        return self._values

    def __deepcopy__(self, memo: Any) -> "SharedInput":
        return memo.setdefault(id(self), SharedInput(self.quantizer))  # type: ignore[no-any-return]

    def __reduce__(self) -> tuple[Any, ...]:
        return SharedInput, (self.quantizer,)
