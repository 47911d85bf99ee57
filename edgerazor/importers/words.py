"""Integers of a few bits that lie one after another in 32-bit words, the first in the lowest bits."""

import numpy as np
import torch
from torch import Tensor


def unpack_words(words: Tensor, bits: int, count: int) -> Tensor:
    """uint8 `[N, count]` from int32 `[N, W]`: element i of a row begins at its bit i * bits."""
    stream = words.contiguous().numpy().astype("<i4", copy=False).view(np.uint8)
    flat = np.unpackbits(stream, axis=-1, count=count * bits, bitorder="little")
    powers = (1 << np.arange(bits)).astype(np.uint8)
    return torch.from_numpy(flat.reshape(len(flat), count, bits) @ powers)
