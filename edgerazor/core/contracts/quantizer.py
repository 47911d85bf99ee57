"""What a quantizer implements."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from torch import Tensor

    from edgerazor.core.tensor import QuantizedTensor
    from edgerazor.schemas.components import ComponentParams


class Quantizer(Protocol):
    """Turns numbers into codes and scales. Pure: it holds parameters, no state."""

    params: "ComponentParams"
    rows_independent: bool

    def check_shape(self, shape: tuple[int, ...]) -> None:
        """Raise PlanError if the last axis does not fit, naming the group sizes that would."""

    def widths(self, shape: tuple[int, ...]) -> Mapping[int, int]:
        """`{qmax: number of weights}` from the shape alone."""

    def quantize(self, x: "Tensor") -> "QuantizedTensor":
        """Codes and scales of `x [..., C]`; the only place that rounds."""

    def fake_quantize(self, x: "Tensor") -> "Tensor":
        """`quantize(x).dequantize(x.dtype)` bit for bit; the gradient passes straight through."""
