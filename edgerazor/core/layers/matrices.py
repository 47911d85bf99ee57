"""A parameter as the matrices it holds, each of which is quantized as if it stood alone (METHOD 2.1).

The weight of a linear layer is one matrix, or q, k and v one below the other; gate and up of all experts
of a mixture are many in one tensor. Only quantizers whose rows depend on each other can tell the difference.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod

import torch
from torch import Tensor

from edgerazor.core.contracts import Quantizer
from edgerazor.core.tensor import QuantizedTensor


@dataclass(frozen=True)
class Matrices:
    """How a parameter reads as matrices `[rows, columns]`, one below the other in the order of memory.

    Attributes:
        shape: of the parameter.
        rows: output channels of each matrix, if all have as many; of all together where `parts` are given.
        columns: inputs of each matrix, along which groups run.
        parts: output channels of each matrix where they differ; empty where they do not.
    """

    shape: tuple[int, ...]
    rows: int
    columns: int
    parts: tuple[int, ...] = ()

    @classmethod
    def along_last_axis(cls, shape: Sequence[int], count: int = 1) -> "Matrices":
        """A parameter `[..., columns]` as `count` matrices; its leading axes are taken as rows."""
        return cls(tuple(shape), prod(shape[:-1]) // count, shape[-1])

    def split(self, parts: Sequence[int]) -> "Matrices":
        """The same parameter as matrices of so many rows each."""
        assert sum(parts) == self.stacked[0], f"{self.stacked[0]} rows are not those of {parts}"
        return replace(self, rows=sum(parts), parts=tuple(parts))

    @property
    def heights(self) -> tuple[int, ...]:
        """Rows of each matrix, from above."""
        return self.parts or (self.rows,) * (prod(self.shape) // (self.rows * self.columns))

    @property
    def count(self) -> int:
        """Number of matrices."""
        return len(self.heights)

    @property
    def shapes(self) -> Mapping[tuple[int, int], int]:
        """`{(rows, columns): number of matrices of that shape}`."""
        return Counter((rows, self.columns) for rows in self.heights)

    @property
    def stacked(self) -> tuple[int, int]:
        """`(rows, columns)` of all matrices one below the other, as codes and packed tensors hold them."""
        return prod(self.shape) // self.columns, self.columns

    def stack(self, weight: Tensor) -> Tensor:
        """The parameter `shape` as `[count * rows, columns]`."""
        return weight.reshape(self.stacked)

    def unstack(self, values: Tensor) -> Tensor:
        """`[count * rows, columns]` in the parameter's own shape."""
        return values.reshape(self.shape)

    def widths_of_all(self, widths: Callable[[tuple[int, int]], Mapping[int, int]]) -> dict[int, int]:
        """`{qmax: number of weights}` of all matrices, from what gives those of one by its shape."""
        total = Counter[int]()
        for shape, count in self.shapes.items():
            total.update({qmax: weights * count for qmax, weights in widths(shape).items()})
        return dict(total)

    def quantizer(self, quantizer: Quantizer) -> Quantizer:
        """What quantizes each matrix of the whole parameter as `quantizer` does one."""
        as_it_is = self._at_once(quantizer) and self.shape[-1] == self.columns
        return quantizer if as_it_is else MatricesQuantizer(quantizer, self)

    def quantize(self, quantizer: Quantizer, weight: Tensor) -> QuantizedTensor:
        """Codes `[count * rows, columns]` and their scales, of a parameter of this shape."""
        stacked = self.stack(weight)
        if self._at_once(quantizer):
            return quantizer.quantize(stacked)
        return join_rows([quantizer.quantize(matrix) for matrix in stacked.split(self.heights)])

    def fake_quantize(self, quantizer: Quantizer, weight: Tensor) -> Tensor:
        """`quantize` and dequantize, in shape and dtype of `weight`; the gradient passes straight through."""
        if self._at_once(quantizer):
            return self.unstack(quantizer.fake_quantize(self.stack(weight)))
        matrices = [quantizer.fake_quantize(matrix) for matrix in self.stack(weight).split(self.heights)]
        return self.unstack(torch.cat(matrices))

    def quantize_in_parts(self, quantizer: Quantizer, weight: Tensor, *, weights_at_once: int) -> QuantizedTensor:
        """The bits of `quantize`, about `weights_at_once` at a time where rows are independent, to save memory."""
        rows_at_once = max(weights_at_once // self.columns, 1)
        stacked = self.stack(weight)
        if not quantizer.rows_independent or len(stacked) <= rows_at_once:
            return self.quantize(quantizer, weight)
        return join_rows([quantizer.quantize(rows) for rows in stacked.split(rows_at_once)])

    def _at_once(self, quantizer: Quantizer) -> bool:
        """Whether quantizing the whole gives what its matrices give; a quantizer may know that of its own rule."""
        return self.count == 1 or all(quantizer.splits_at(rows) for rows in set(self.heights))


def join_rows(parts: Sequence[QuantizedTensor]) -> QuantizedTensor:
    """Quantized rows one below the other; all parts have one group size."""
    codes, scale, qmax = (torch.cat([getattr(part, name) for part in parts]) for name in ("codes", "scale", "qmax"))
    return QuantizedTensor(codes, scale, qmax, parts[0].group_size)


class MatricesQuantizer(Quantizer):
    """A quantizer of parameters that hold several matrices: each is quantized as if it stood alone.

    Args:
        quantizer: of one matrix.
        matrices: how the parameters read.
    """

    def __init__(self, quantizer: Quantizer, matrices: Matrices):
        super().__init__(quantizer.params)
        self.symmetric, self.signed_scale = quantizer.symmetric, quantizer.signed_scale
        self.rows_independent = quantizer.rows_independent
        self._quantizer, self._matrices = quantizer, matrices

    def check_shape(self, shape: tuple[int, ...]) -> None:
        """Raise PlanError unless the quantizer takes each of the matrices."""
        for matrix in self._matrices.shapes:
            self._quantizer.check_shape(matrix)

    def widths(self, shape: tuple[int, ...]) -> Mapping[int, int]:
        """`{qmax: number of weights}` of all matrices."""
        return self._matrices.widths_of_all(self._quantizer.widths)

    def quantize(self, x: Tensor) -> QuantizedTensor:
        """Codes of all matrices one below the other."""
        return self._matrices.quantize(self._quantizer, x)

    def fake_quantize(self, x: Tensor) -> Tensor:
        """The values of `quantize`, in the shape of `x`."""
        return self._matrices.fake_quantize(self._quantizer, x)
