"""What all built-in quantizers share: groups along the last axis, scales, codes (METHOD 1.2)."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from edgerazor.core.shapes import check_group_size
from edgerazor.core.ste import straight_through
from edgerazor.core.tensor import QuantizedTensor
from edgerazor.kernels import reference
from edgerazor.schemas.components import QuantizerParams


class Grid(NamedTuple):
    """How the groups of one tensor are rounded; tensors broadcast over `[..., G, g]`."""

    scale: Tensor
    lowest: Tensor | int
    highest: Tensor | int


class GroupedQuantizer(ABC):
    """A quantizer defined by a scale per group and a range of codes; subclasses give the grid and the widths."""

    rows_independent = True
    symmetric = True

    def __init__(self, params: QuantizerParams):
        self.params = params

    def check_shape(self, shape: tuple[int, ...]) -> None:
        """Raise PlanError unless the group size divides the columns."""
        check_group_size(shape[-1], self.params.group_size)

    @abstractmethod
    def widths(self, shape: tuple[int, ...]) -> Mapping[int, int]:
        """`{qmax: number of weights}` of a tensor of this shape."""

    @abstractmethod
    def _grid(self, groups: Tensor) -> Grid:
        """Scales (float32, already rounded as stored) and code range for float32 groups `[..., G, g]`."""

    @abstractmethod
    def _qmax(self, groups: Tensor) -> Tensor:
        """int8 `[R]` or `[R, G]` for groups `[..., G, g]`."""

    @torch.no_grad()
    def quantize(self, x: Tensor) -> QuantizedTensor:
        """Codes and scales of `x [..., C]`, any float dtype; computed in float32."""
        self.check_shape(tuple(x.shape))
        groups = reference.split_groups(x, self.params.group_size)
        grid = self._grid(groups)
        # A NaN has no integer; its group carries it in the scale.
        codes = reference.round_codes(groups, *grid).nan_to_num_(0.0).to(torch.int8).reshape(x.shape)
        scale_dtype = torch.float16 if self._scale_dtype == "float16" else torch.float32
        scale = grid.scale.squeeze(-1).to(scale_dtype)
        return QuantizedTensor(codes, scale, self._qmax(groups), groups.shape[-1])

    def quantize_dequantize(self, x: Tensor) -> tuple[QuantizedTensor, Tensor]:
        """Codes and scales, and the values they stand for in the dtype of `x`, in one pass."""
        quantized = self.quantize(x)
        return quantized, quantized.dequantize(x.dtype)

    def fake_quantize(self, x: Tensor) -> Tensor:
        """`quantize(x).dequantize(x.dtype)` bit for bit; the gradient passes straight through."""
        return straight_through(x, self._fake_quantize)

    def _fake_quantize(self, x: Tensor) -> Tensor:
        self.check_shape(tuple(x.shape))
        groups = reference.split_groups(x, self.params.group_size)
        grid = self._grid(groups)
        codes = reference.round_codes(groups, *grid)
        return codes.mul_(grid.scale).reshape(x.shape).to(x.dtype)

    @property
    def _scale_dtype(self) -> str:
        return str(getattr(self.params, "scale_dtype", "float16"))


def row_count(groups: Tensor) -> int:
    """Rows of groups `[..., G, g]`: the product of the leading axes."""
    return groups.shape[:-2].numel()
