"""Several matrices in one tensor: each is quantized as if it stood alone (METHOD 2.1).

A block is one logical matrix: the gate or the up part of one expert, for example. Only quantizers whose rows depend on
each other can tell the difference.
"""

from collections.abc import Mapping
from math import prod
from typing import Any

import torch
from torch import Tensor

from edgerazor.core.contracts import Quantizer
from edgerazor.core.tensor import QuantizedTensor


def block_shape(shape: tuple[int, ...], blocks: int) -> tuple[int, int]:
    """`(rows, columns)` of one block of a tensor `[..., columns]`."""
    return prod(shape[:-1]) // blocks, shape[-1]


def block_widths(widths: Mapping[int, int], blocks: int) -> dict[int, int]:
    """`{qmax: number of weights}` of all blocks, from those of one."""
    return {qmax: count * blocks for qmax, count in widths.items()}


def quantize_blocks(quantizer: Quantizer, weight: Tensor, blocks: int) -> QuantizedTensor:
    """Codes `[R, C]` and scales of `weight [..., C]`, whose leading axes are taken as rows; block after block."""
    rows, columns = block_shape(tuple(weight.shape), blocks)
    if _at_once(quantizer, rows, blocks):
        return quantizer.quantize(weight.reshape(-1, columns))
    parts = [quantizer.quantize(block) for block in weight.reshape(blocks, rows, columns)]
    codes, scale, qmax = (torch.cat([getattr(part, name) for part in parts]) for name in ("codes", "scale", "qmax"))
    return QuantizedTensor(codes, scale, qmax, parts[0].group_size)


def fake_quantize_blocks(quantizer: Quantizer, weight: Tensor, blocks: int) -> Tensor:
    """`quantize_blocks(...)` dequantized, in the shape and dtype of `weight`; the gradient passes straight through."""
    rows, columns = block_shape(tuple(weight.shape), blocks)
    if _at_once(quantizer, rows, blocks):
        return quantizer.fake_quantize(weight)
    parts = [quantizer.fake_quantize(block) for block in weight.reshape(blocks, rows, columns).unbind()]
    return torch.stack(parts).reshape(weight.shape)


def _at_once(quantizer: Any, rows: int, blocks: int) -> bool:
    """Whether quantizing the whole gives what its blocks give; a quantizer may know that of its own rule."""
    if blocks == 1 or quantizer.rows_independent:
        return True
    return hasattr(quantizer, "splits_at") and bool(quantizer.splits_at(rows))


class BlockQuantizer:
    """A quantizer of tensors that hold several matrices."""

    def __init__(self, quantizer: Quantizer, blocks: int):
        self.params, self.rows_independent = quantizer.params, quantizer.rows_independent
        self._quantizer, self._blocks = quantizer, blocks

    def check_shape(self, shape: tuple[int, ...]) -> None:
        """Of one of the matrices."""
        self._quantizer.check_shape(block_shape(shape, self._blocks))

    def widths(self, shape: tuple[int, ...]) -> Mapping[int, int]:
        """Of all of them."""
        return block_widths(self._quantizer.widths(block_shape(shape, self._blocks)), self._blocks)

    def quantize(self, x: Tensor) -> QuantizedTensor:
        """As `quantize_blocks`."""
        return quantize_blocks(self._quantizer, x, self._blocks)

    def fake_quantize(self, x: Tensor) -> Tensor:
        """As `fake_quantize_blocks`."""
        return fake_quantize_blocks(self._quantizer, x, self._blocks)
