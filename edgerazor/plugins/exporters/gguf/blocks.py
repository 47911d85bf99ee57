"""Block types of GGUF and their packers. A packer places codes and scales; it computes no scale and rounds nothing.

`q` is the stored unsigned code and `d` the two bytes of the float16 scale, both per block: `[..., block]`, `[..., 2]`.
Adding a type is adding a record to `BLOCK_TYPES`, and its decoder to `unpack`.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgerazor.errors import ExportError

Bytes = NDArray[np.uint8]
Codes = NDArray[np.int8]
Scales = NDArray[np.float16]

SMALLEST_SCALE = 2.0**-14


@dataclass(frozen=True)
class BlockType:
    """One way to store a matrix.

    Attributes:
        name, id: of the type in the format.
        block: columns that share one scale.
        bytes: of one block.
        low, high: codes that it holds.
        offset: added to a code to make it unsigned; 0 for signed storage.
        layout: `(q, d) -> uint8 [..., bytes]`.
        backends: where llama.cpp computes with it.
    """

    name: str
    id: int
    block: int
    bytes: int
    low: int
    high: int
    offset: int
    layout: Callable[[Bytes, Bytes], Bytes]
    backends: str

    @property
    def bits(self) -> float:
        """Bits per weight, scales included."""
        return 8 * self.bytes / self.block

    def row_bytes(self, columns: int) -> int:
        """Bytes of one row."""
        return columns // self.block * self.bytes

    def pack(self, codes: Codes, scale: Scales) -> Bytes:
        """Codes int8 `[R, C]` and scales float16 `[R, C/g]` as uint8 `[R, row_bytes]`.

        Raises:
            ExportError: a code, a scale or a shape that the type cannot hold exactly.
        """
        rows, columns = codes.shape
        group_size = columns // scale.shape[1]
        if columns % self.block or group_size % self.block:
            raise ExportError(f"{self.name}: {columns} columns in groups of {group_size} do not fill its blocks")
        if codes.size and (codes.min() < self.low or codes.max() > self.high):
            raise ExportError(f"{self.name}: holds codes {self.low}..{self.high}, found {codes.min()}..{codes.max()}")
        # Repeated along the row, element by element: neighbours in a group share a scale.
        d = np.repeat(scale, group_size // self.block, axis=1).astype("<f2")
        magnitude = np.abs(d)
        if not np.isfinite(d).all() or bool(((magnitude > 0) & (magnitude < SMALLEST_SCALE)).any()):
            raise ExportError(f"{self.name}: a scale is subnormal or not finite")
        q = (codes + np.int8(self.offset)).view(np.uint8).reshape(rows, -1, self.block)
        packed = self.layout(q, d.view(np.uint8).reshape(rows, -1, 2))
        return packed.reshape(rows, self.row_bytes(columns))


def _q4_0(q: Bytes, d: Bytes) -> Bytes:
    return np.concatenate([d, q[..., :16] | q[..., 16:] << 4], axis=-1)


def _q8_0(q: Bytes, d: Bytes) -> Bytes:
    return np.concatenate([d, q], axis=-1)


def _q2_0(q: Bytes, d: Bytes) -> Bytes:
    quads = q.reshape(*q.shape[:-1], 16, 4)
    return np.concatenate([d, _combine(quads, axis=-1, bits=2)], axis=-1)


def _planes(q: Bytes) -> Bytes:
    """Two halves of 128 columns, four planes of 32 in each: the 64 bytes that TQ2_0 and Q2_K share."""
    halves = q.reshape(*q.shape[:-1], 2, 4, 32)
    return _combine(halves, axis=-2, bits=2).reshape(*q.shape[:-1], 64)


def _tq2_0(q: Bytes, d: Bytes) -> Bytes:
    return np.concatenate([_planes(q), d], axis=-1)


def _q2_k(q: Bytes, d: Bytes) -> Bytes:
    # Sub-block scale 1 and minimum 1: d * 1 * (c + 1) - d * 1.
    constants = np.full((*q.shape[:-1], 16), 0x11, dtype=np.uint8)
    return np.concatenate([constants, _planes(q), d, d], axis=-1)


def _q4_k(q: Bytes, d: Bytes) -> Bytes:
    # Sub-block scale 1 and minimum 8 in six bits each: d * 1 * (c + 8) - d * 8.
    constants = np.repeat(np.array([0x01, 0x08, 0x81], dtype=np.uint8), 4)
    chunks = q.reshape(*q.shape[:-1], 4, 2, 32)
    nibbles = _combine(chunks, axis=-2, bits=4).reshape(*q.shape[:-1], 128)
    return np.concatenate([d, d, np.broadcast_to(constants, (*q.shape[:-1], 12)), nibbles], axis=-1)


def _tq1_0(q: Bytes, d: Bytes) -> Bytes:
    parts = [
        _digits(q[..., :160].reshape(*q.shape[:-1], 5, 32)),
        _digits(q[..., 160:240].reshape(*q.shape[:-1], 5, 16)),
        _digits(q[..., 240:].reshape(*q.shape[:-1], 4, 4)),
    ]
    return np.concatenate([*parts, d], axis=-1)


def _digits(digits: Bytes) -> Bytes:
    """Up to five base-3 digits on the last but one axis, first one most significant, as the fraction v / 243 of 256."""
    value = np.zeros((*digits.shape[:-2], digits.shape[-1]), dtype=np.uint16)
    for index in range(5):
        value *= 3
        if index < digits.shape[-2]:
            value += digits[..., index, :]
    return ((256 * value + 242) // 243).astype(np.uint8)


def _combine(parts: Bytes, *, axis: int, bits: int) -> Bytes:
    """The entries of one axis in one byte, first entry in the lowest bits."""
    moved = np.moveaxis(parts, axis, 0)
    result = moved[0].copy()
    for index in range(1, len(moved)):
        result |= moved[index] << (bits * index)
    return result


_EVERYWHERE = "all backends"
BLOCK_TYPES: dict[str, BlockType] = {
    block_type.name: block_type
    for block_type in (
        BlockType("TQ1_0", 34, 256, 54, -1, 1, 1, _tq1_0, "CPU, Vulkan"),
        BlockType("TQ2_0", 35, 256, 66, -1, 1, 1, _tq2_0, "CPU, Metal, Vulkan"),
        BlockType("Q2_0", 42, 64, 18, -1, 2, 1, _q2_0, "ARM, CUDA, Metal, Vulkan, SYCL; slow on x86"),
        BlockType("Q2_K", 10, 256, 84, -1, 2, 1, _q2_k, _EVERYWHERE),
        BlockType("Q4_0", 2, 32, 18, -8, 7, 8, _q4_0, _EVERYWHERE),
        BlockType("Q4_K", 12, 256, 144, -8, 7, 8, _q4_k, _EVERYWHERE),
        BlockType("Q8_0", 8, 32, 34, -128, 127, 0, _q8_0, _EVERYWHERE),
    )
}
