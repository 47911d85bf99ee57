"""How the rows of a matrix are stored: one operand per width, in blocks that a kernel exists for (ONNX section 3).

A stored code is code + 2^(bits - 1): the operators take that middle for zero where no zero point is given.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from edgerazor.core.tensor import QuantizedTensor
from edgerazor.errors import ExportError

WIDTHS = (2, 4, 8)
_CODES_AT_ONCE = 1 << 22
# Blocks that a fast kernel exists for; others would run, or not even load.
_BLOCKS = {2: (32, 64, 128), 4: (16, 32, 64, 128, 256), 8: (16, 32, 64, 128, 256)}


@dataclass(frozen=True)
class Rows:
    """Which rows of a matrix a group holds.

    Attributes:
        period: every `period`-th row from the first is wide; 1: all rows; 0: rows as listed in `index`.
        wide: the group holds those rows, and not the others.
        index: row numbers, where there is no period.
    """

    period: int = 1
    wide: bool = True
    index: tuple[int, ...] = ()

    def of(self, rows: int) -> NDArray[np.intp]:
        """Row numbers, ascending."""
        if self.period == 0:
            return np.array(self.index, dtype=np.intp)
        every = np.arange(rows)
        return every[(every % self.period == 0) == self.wide] if self.period > 1 else every


@dataclass(frozen=True)
class RowGroup:
    """Rows of one width.

    Attributes:
        bits: 2, 4 or 8.
        block: columns of a block in the operator; `group_size` is a multiple of it.
        group_size: columns that share a scale in the checkpoint.
        rows: where they belong.
        count, columns: shape.
    """

    bits: int
    block: int
    group_size: int
    rows: Rows
    count: int
    columns: int

    @property
    def bytes(self) -> int:
        """Of codes and float16 group scales."""
        return -(-self.count * self.columns * self.bits // 8) + self.count * 2 * self.columns // self.group_size

    @property
    def code_shape(self) -> tuple[int, int, int]:
        """Of the packed codes."""
        return self.count, self.columns // self.block, self.block * self.bits // 8


def split_rows(
    tensor: QuantizedTensor,
    *,
    ternary_bits: int,
    activation_group: int | None,
    one_width: bool = False,
    any_group: bool = False,
) -> list[RowGroup]:
    """The row groups of a matrix, widest first; one group if all rows have one width or `one_width` asks for it.

    Ternary groups that no 2-bit block divides (16, 48) are stored in 4 bits. With `any_group` no product is made of the
    codes, and a block is a group of any size.

    Raises:
        ExportError: no block fits the groups, or codes exceed 8 bits.
    """
    fits = any_group or tensor.group_size % _BLOCKS[2][0] == 0
    widths = _widths(tensor, ternary_bits if fits else 4)
    rows, columns = tensor.codes.shape
    present = sorted({int(bits) for bits in np.unique(widths)}, reverse=True)
    if one_width or len(present) == 1:
        chosen = [(present[0], Rows(), rows)]
    elif len(present) == 2 and (period := _period(widths == present[0])):
        chosen = [
            (present[0], Rows(period, True), rows // period),
            (present[1], Rows(period, False), rows - rows // period),
        ]
    else:
        chosen = [
            (bits, Rows(0, index=tuple(np.flatnonzero(widths == bits).tolist())), int((widths == bits).sum()))
            for bits in present
        ]
    size = tensor.group_size
    blocks = {bits: size if any_group else choose_block(size, bits, activation_group) for bits in present}
    return [RowGroup(bits, blocks[bits], size, where, count, columns) for bits, where, count in chosen]


def choose_block(group_size: int, bits: int, activation_group: int | None) -> int:
    """Columns of a block: the group of the trained activations where it fits, else the largest power of two that does.

    Raises:
        ExportError: nothing from 16 on divides the group.
    """
    fitting = [size for size in _BLOCKS[bits] if group_size % size == 0]
    if not fitting:
        raise ExportError(f"group_size {group_size} fits no MatMulNBits block (16, 32, 64, 128, 256)")
    return activation_group if activation_group in fitting else max(fitting)


def pack_rows(tensor: QuantizedTensor, row_group: RowGroup) -> tuple[NDArray[np.uint8], NDArray[np.float16]]:
    """Codes uint8 `[count, columns / block, block * bits / 8]` and scales float16 `[count, columns / group_size]`."""
    index = row_group.rows.of(tensor.codes.shape[0])
    packed = np.empty(row_group.code_shape, dtype=np.uint8)
    some, per_byte = max(1, _CODES_AT_ONCE // row_group.columns), 8 // row_group.bits
    for start in range(0, len(index), some):
        rows = slice(start, start + some)
        codes = tensor.codes.numpy()[index[rows]].astype(np.int16) + (1 << (row_group.bits - 1))
        places = codes.astype(np.uint8).reshape(-1, *row_group.code_shape[1:], per_byte)
        packed[rows] = places[..., 0]
        for place in range(1, per_byte):
            packed[rows] |= places[..., place] << (row_group.bits * place)
    return packed, tensor.scale.to(torch.float16).numpy()[index]


def _widths(tensor: QuantizedTensor, ternary_bits: int) -> NDArray[np.intp]:
    """Bits of each row, from its codes and its declared width."""
    codes = tensor.codes.numpy()
    low, high = codes.min(axis=1).astype(np.intp), codes.max(axis=1).astype(np.intp)
    declared = tensor.widest_qmax().numpy().astype(np.intp)
    if bool((high > declared).any()) or bool((low < -declared - 1).any()):
        raise ExportError(
            f"codes reach {low.min()}..{high.max()} but qmax is {declared.max()}; the checkpoint is damaged "
            "(edgerazor verify)"
        )
    widths = np.where(declared <= 1, ternary_bits, np.where(declared <= 7, 4, 8))
    return np.maximum(widths, np.where((low < -8) | (high > 7), 8, np.where((low < -2) | (high > 1), 4, 2)))


def _period(wide: NDArray[np.bool_]) -> int:
    """n if exactly every n-th row from the first is wide and n divides the rows, else 0."""
    places = np.flatnonzero(wide)
    if len(places) < 1 or places[0] != 0 or len(wide) % len(places):
        return 0
    period = len(wide) // len(places)
    return period if period > 1 and bool((places == np.arange(0, len(wide), period)).all()) else 0
