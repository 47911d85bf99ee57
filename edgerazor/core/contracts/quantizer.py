"""What a quantizer implements."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from edgerazor.schemas.components import QuantizerParams

if TYPE_CHECKING:
    from torch import Tensor

    from edgerazor.core.tensor import QuantizedTensor


class Quantizer(ABC):
    """Turns numbers into codes and scales. Pure: it holds parameters, no state.

    Attributes:
        params: its parameters.
        symmetric: True if codes stay within -qmax and qmax; False if they reach -qmax-1.
        rows_independent: True if a row quantized alone gives what it gives among others. Only such quantizers serve
            activations and the key/value cache.
        signed_scale: True if scales may be negative, so that the largest magnitude of a group has code -qmax-1.
        signed: False if codes of a group without a negative number reach 2 * qmax + 1. Such codes are int16 and are
            never stored: the quantizer serves activations alone.
    """

    params: Any
    symmetric: bool = True
    rows_independent: bool = True
    signed_scale: bool = False
    signed: bool = True

    def __init__(self, params: QuantizerParams):
        self.params = params

    @abstractmethod
    def check_shape(self, shape: tuple[int, ...]) -> None:
        """Raise PlanError if the last axis does not fit, naming the group sizes that would."""

    @abstractmethod
    def widths(self, shape: tuple[int, ...]) -> Mapping[int, int]:
        """`{qmax: number of weights}` of a tensor, from its shape alone."""

    @abstractmethod
    def quantize(self, x: "Tensor") -> "QuantizedTensor":
        """Codes and scales of `x [..., C]`; the only place that rounds."""

    def stored_widths(self, shape: tuple[int, ...]) -> Mapping[int, int]:
        """`widths` as a file of whole rows holds them: wider where widths mix inside a row."""
        return self.widths(shape)

    def splits_at(self, rows: int) -> bool:
        """Whether blocks of that many rows, quantized one by one, give what the whole gives."""
        return self.rows_independent

    def quantize_dequantize(self, x: "Tensor") -> "tuple[QuantizedTensor, Tensor]":
        """`quantize(x)`, and its values in shape and dtype of `x`; worth writing where one pass gives both."""
        quantized = self.quantize(x)
        return quantized, quantized.dequantize(x.dtype).reshape(x.shape)

    def fake_quantize(self, x: "Tensor") -> "Tensor":
        """`quantize(x).dequantize(x.dtype)` bit for bit; the gradient passes straight through."""
        from edgerazor.core.tensor import straight_through

        return straight_through(x, lambda values: self.quantize_dequantize(values)[1])

    def fake_quantize_only(self, x: "Tensor") -> "Tensor":
        """`fake_quantize` where no gradient is wanted, detached; worth writing where it takes fewer calls.

        A finished model that writes token by token calls it about five times a layer.
        """
        return self.fake_quantize(x.detach())
