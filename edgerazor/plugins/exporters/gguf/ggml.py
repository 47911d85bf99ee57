"""llama.cpp's own decoders, called where llama-cpp-python is installed. Nothing of it is imported, only its library."""

import ctypes
from collections.abc import Callable
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

_FUNCTIONS = {
    "Q4_0": "dequantize_row_q4_0",
    "Q8_0": "dequantize_row_q8_0",
    "Q2_K": "dequantize_row_q2_K",
    "Q4_K": "dequantize_row_q4_K",
    "TQ1_0": "dequantize_row_tq1_0",
    "TQ2_0": "dequantize_row_tq2_0",
    "Q2_0": "dequantize_row_q2_0",
}


@cache
def load_library() -> ctypes.CDLL | None:
    """libggml of the installed llama-cpp-python, or None."""
    spec = find_spec("llama_cpp")
    for folder in (spec and spec.submodule_search_locations) or ():
        for path in sorted((Path(folder) / "lib").glob("*ggml-base.*")):
            try:
                return ctypes.CDLL(str(path))
            except OSError:
                continue
    return None


def dequantizer(name: str) -> Callable[[NDArray[np.uint8], int], NDArray[np.float32]] | None:
    """`(raw uint8 [R, row_bytes], columns) -> float32 [R, columns]` of one block type; None if the library lacks it."""
    library = load_library()
    function = getattr(library, _FUNCTIONS.get(name, "absent"), None)
    if function is None:
        return None
    function.argtypes, function.restype = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64], None

    def dequantize(raw: NDArray[np.uint8], columns: int) -> NDArray[np.float32]:
        blocks = np.ascontiguousarray(raw)
        values = np.empty((blocks.shape[0], columns), dtype=np.float32)
        function(blocks.ctypes.data, values.ctypes.data, values.size)
        return values

    return dequantize
