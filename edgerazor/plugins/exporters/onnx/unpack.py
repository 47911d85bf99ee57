"""Reading codes back from operator inputs, for checking what was written. It shares nothing with the packer."""

import numpy as np
from numpy.typing import NDArray


def read_codes(packed: NDArray[np.uint8], bits: int, columns: int) -> NDArray[np.int16]:
    """int16 `[rows, columns]` of signed codes; column c lies in byte c * bits // 8 of a row, low bits first."""
    flat = packed.reshape(packed.shape[0], -1)
    column = np.arange(columns)
    shift = ((column * bits) % 8).astype(np.uint8)
    stored = (flat[:, column * bits // 8] >> shift) & np.uint8((1 << bits) - 1)
    return stored.astype(np.int16) - (1 << (bits - 1))


def read_scales(stored: NDArray[np.generic], groups: int) -> NDArray[np.float32]:
    """float32 `[rows, groups]` from one scale per group or per block."""
    flat = stored.reshape(stored.shape[0], -1).astype(np.float32)
    repeats = flat.shape[1] // groups
    first = flat[:, ::repeats]
    if repeats > 1 and not np.array_equal(np.repeat(first, repeats, axis=1), flat):
        return np.full_like(first, np.nan)
    return first
