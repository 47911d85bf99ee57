"""Decoders of the block types, for checking what was written. They share nothing with the packers.

Each finds, for element e of a block, its byte and its place in the byte, and computes the value as llama.cpp does.
`raw` is uint8 `[N, bytes]`, one block a row; the result is float32 `[N, block]`.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Raw = NDArray[np.uint8]
Values = NDArray[np.float32]


@dataclass(frozen=True)
class Decoder:
    """How a stored type is read: `block` columns in `bytes` bytes."""

    name: str
    block: int
    bytes: int
    decode: Callable[[Raw], Values]

    def rows(self, raw: Raw, columns: int) -> Values:
        """uint8 `[R, row_bytes]` to float32 `[R, columns]`."""
        return self.decode(raw.reshape(-1, self.bytes)).reshape(-1, columns)


def _half(raw: Raw, start: int) -> Values:
    """float32 `[N, 1]` from the two bytes at `start`."""
    return np.ascontiguousarray(raw[:, start : start + 2]).view("<f2").astype(np.float32)


def _bits(raw: Raw, byte: NDArray[np.intp], shift: NDArray[np.intp], mask: int) -> Values:
    return ((raw[:, byte] >> shift.astype(np.uint8)) & np.uint8(mask)).astype(np.float32)


def _decode_q4_0(raw: Raw) -> Values:
    e = np.arange(32)
    return _half(raw, 0) * (_bits(raw, 2 + e % 16, 4 * (e // 16), 15) - 8)


def _decode_q8_0(raw: Raw) -> Values:
    return _half(raw, 0) * np.ascontiguousarray(raw[:, 2:]).view(np.int8).astype(np.float32)


def _decode_q2_0(raw: Raw) -> Values:
    e = np.arange(64)
    return _half(raw, 0) * (_bits(raw, 2 + e // 4, 2 * (e % 4), 3) - 1)


def _two_bit(raw: Raw, start: int) -> Values:
    e = np.arange(256)
    return _bits(raw, start + 32 * (e // 128) + e % 32, 2 * (e % 128 // 32), 3)


def _decode_tq2_0(raw: Raw) -> Values:
    return _half(raw, 64) * (_two_bit(raw, 0) - 1)


def _decode_q2_k(raw: Raw) -> Values:
    part = np.arange(256) // 16
    scale, minimum = (raw[:, part] & 15).astype(np.float32), (raw[:, part] >> 4).astype(np.float32)
    return _half(raw, 80) * scale * _two_bit(raw, 16) - _half(raw, 82) * minimum


def _decode_q4_k(raw: Raw) -> Values:
    e = np.arange(256)
    code = _bits(raw, 16 + 32 * (e // 64) + e % 32, 4 * (e % 64 // 32), 15)
    s = raw[:, 4:16]
    scale = np.concatenate([s[:, :4] & 63, (s[:, 8:] & 15) | (s[:, :4] >> 6 << 4)], axis=1)
    minimum = np.concatenate([s[:, 4:8] & 63, (s[:, 8:] >> 4) | (s[:, 4:8] >> 6 << 4)], axis=1)
    part = e // 32
    return _half(raw, 0) * scale[:, part].astype(np.float32) * code - _half(raw, 2) * minimum[:, part].astype(
        np.float32
    )


def _decode_tq1_0(raw: Raw) -> Values:
    e = np.arange(256)
    byte = np.where(e < 160, e % 32, np.where(e < 240, 32 + (e - 160) % 16, 48 + (e - 240) % 4))
    digit = np.where(e < 160, e // 32, np.where(e < 240, (e - 160) // 16, (e - 240) // 4))
    shifted = raw[:, byte] * (3**digit).astype(np.uint8)
    return _half(raw, 52) * ((shifted.astype(np.uint16) * 3 >> 8).astype(np.float32) - 1)


def _decode_f32(raw: Raw) -> Values:
    return np.ascontiguousarray(raw).view("<f4").astype(np.float32)


def _decode_f16(raw: Raw) -> Values:
    return np.ascontiguousarray(raw).view("<f2").astype(np.float32)


def _decode_bf16(raw: Raw) -> Values:
    return (np.ascontiguousarray(raw).view("<u2").astype(np.uint32) << 16).view(np.float32)


DECODERS: dict[int, Decoder] = {
    0: Decoder("F32", 1, 4, _decode_f32),
    1: Decoder("F16", 1, 2, _decode_f16),
    2: Decoder("Q4_0", 32, 18, _decode_q4_0),
    8: Decoder("Q8_0", 32, 34, _decode_q8_0),
    10: Decoder("Q2_K", 256, 84, _decode_q2_k),
    12: Decoder("Q4_K", 256, 144, _decode_q4_k),
    30: Decoder("BF16", 1, 2, _decode_bf16),
    34: Decoder("TQ1_0", 256, 54, _decode_tq1_0),
    35: Decoder("TQ2_0", 256, 66, _decode_tq2_0),
    42: Decoder("Q2_0", 64, 18, _decode_q2_0),
}
