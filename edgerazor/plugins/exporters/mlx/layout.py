"""The affine layout of MLX: unsigned numbers q of a few bits in uint32 words, of which a value is scale * q + bias."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgerazor.core.tensor import QuantizedTensor
from edgerazor.errors import ExportError

GROUPS = (128, 64, 32)
_BITS = (2, 3, 4, 5, 6, 8)


@dataclass(frozen=True)
class Affine:
    """How a matrix `[rows, columns]` is stored.

    Attributes:
        bits: of q, which stands at bit `column * bits` of its row, little end first.
        offset: q is the code plus this, so that bias is -offset * scale.
        group_size: columns that share a scale in the file.
        repeats: times that each scale of the checkpoint is written.
    """

    bits: int
    offset: int
    group_size: int
    repeats: int

    def shapes(self, rows: int, columns: int) -> dict[str, tuple[int, int]]:
        """Shape of each tensor: `weight` in words of 32 bits, `scales` and `biases`."""
        groups = (rows, columns // self.group_size)
        return {"weight": (rows, columns * self.bits // 32), "scales": groups, "biases": groups}

    def words(self, codes: NDArray[np.int8]) -> NDArray[np.uint32]:
        """uint32 `[rows, columns * bits / 32]` of codes `[rows, columns]`."""
        stored = (codes.astype(np.int16) + self.offset).astype(np.uint8)
        if 8 % self.bits:
            places = np.unpackbits(stored[..., None], axis=-1, count=self.bits, bitorder="little")
            packed = np.packbits(places.reshape(len(codes), -1), axis=-1, bitorder="little")
        else:
            in_a_byte = stored.reshape(len(codes), -1, 8 // self.bits)
            packed = in_a_byte[..., 0].copy()
            for place in range(1, in_a_byte.shape[-1]):
                packed |= in_a_byte[..., place] << np.uint8(place * self.bits)
        return packed.view("<u4")

    def scales(self, scale: NDArray[np.float16]) -> NDArray[np.float32]:
        """float32 `[rows, columns / group_size]` of scales `[rows, groups]`."""
        return np.repeat(scale.astype(np.float32), self.repeats, axis=-1)


def choose_affine(value: QuantizedTensor) -> Affine:
    """The fewest bits that hold every row of a matrix, and the widest groups of MLX that fit into its own.

    Ternary rows take 2 bits, and 4 where int4 rows are among them.

    Raises:
        ExportError: no group of MLX fits.
    """
    widest = int(value.qmax.max())
    bits = next(bits for bits in _BITS if widest < 1 << (bits - 1))
    offset = 1 if widest == 1 and value.symmetric else 1 << (bits - 1)
    group_size = next((size for size in GROUPS if value.group_size % size == 0), None)
    if group_size is None:
        raise ExportError(f"groups of {value.group_size} columns; MLX takes multiples of {GROUPS[-1]}")
    return Affine(bits, offset, group_size, value.group_size // group_size)
