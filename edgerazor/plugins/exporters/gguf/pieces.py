"""What each token of a vocabulary is written as, asked of llama.cpp once."""

import ctypes
from typing import Any

import llama_cpp

_USUAL = 64


class Pieces(dict[int, bytes]):
    """Bytes of a token; none of a control token.

    Args:
        vocabulary: of llama.cpp.
    """

    def __init__(self, vocabulary: Any):
        super().__init__()
        self._vocabulary = vocabulary

    def __missing__(self, token: int) -> bytes:
        size = _USUAL
        while True:
            buffer = ctypes.create_string_buffer(size)
            count = llama_cpp.llama_token_to_piece(self._vocabulary, token, buffer, size, 0, False)
            if count >= 0:
                return self.setdefault(token, buffer.raw[:count])
            size = -count  # what it takes
