"""GPTQ, symmetric and with columns in their own order.

Layout: `qweight` int32 `[C * bits / 32, R]`, `qzeros` int32 `[G, R * bits / 32]`, `scales` `[G, R]`, `g_idx` `[C]`; the
value is scale * (stored - zero). Format `gptq` stores zero - 1, `gptq_v2` the zero itself (AutoGPTQ, GPTQModel).
"""

from collections.abc import Mapping
from typing import Any

import torch

from edgerazor.core.tensor import QuantizedTensor
from edgerazor.errors import CheckpointError
from edgerazor.importers.formats import CONFIG, Folder
from edgerazor.importers.grids import quantized_tensor
from edgerazor.importers.words import unpack_words

_PARTS = ("qweight", "scales", "qzeros", "g_idx")
_BITS = (2, 3, 4, 8)
_ZERO_BELOW = {"gptq": 1, "gptq_v2": 0}


class GPTQ:
    """Reads one folder.

    Raises:
        CheckpointError: config.json says a width or a format that cannot be read.
    """

    kind = "GPTQ"
    activations: dict[str, Any] | None = None
    notes: tuple[str, ...] = ()

    def __init__(self, folder: Folder, section: Mapping[str, Any]):
        self._folder, where = folder, f"{folder.path / CONFIG}: quantization_config"
        self._bits, form = section.get("bits"), section.get("checkpoint_format") or "gptq"
        if self._bits not in _BITS:
            raise CheckpointError(f"{where}.bits: is {self._bits!r}; expected 2, 3, 4 or 8")
        if form not in _ZERO_BELOW:
            raise CheckpointError(f"{where}.checkpoint_format: is {form!r}; expected gptq or gptq_v2")
        self._below = _ZERO_BELOW[form]
        suffix = ".qweight"
        self._modules = sorted(name.removesuffix(suffix) for name in folder.headers if name.endswith(suffix))
        self.consumed = frozenset(f"{name}.{part}" for name in self._modules for part in _PARTS) & folder.headers.keys()

    def modules(self) -> list[str]:
        return self._modules

    def read(self, module: str) -> QuantizedTensor:
        words, scales, zeros = (self._folder.read(f"{module}.{part}") for part in _PARTS[:3])
        bits, where = int(self._bits or 0), f"{self._folder.path}: {module}.qweight"
        columns, rows = words.shape[0] * 32 // bits, words.shape[-1]
        groups = scales.shape[0]
        if scales.shape != (groups, rows) or columns % groups or words.dtype != torch.int32:
            raise CheckpointError(f"{where}: {list(words.shape)} does not go with scales {list(scales.shape)}")
        self._check_order(module, columns, columns // groups)
        found = unpack_words(zeros, bits, rows).to(torch.int64) + self._below
        if bool((found % 2**bits != 2 ** (bits - 1)).any()):
            raise CheckpointError(f"{where}: has zero points, which have no place in a packed checkpoint")
        stored = unpack_words(words.t(), bits, columns)
        codes = (stored.to(torch.int16) - 2 ** (bits - 1)).to(torch.int8)
        return quantized_tensor(codes, scales.t(), bits, where)

    def _check_order(self, module: str, columns: int, size: int) -> None:
        name = f"{module}.g_idx"
        if name in self._folder.headers:
            order = self._folder.read(name)
            if not torch.equal(order.to(torch.int64), torch.arange(columns) // size):
                raise CheckpointError(
                    f"{self._folder.path}: {name}: columns are ordered by their activations (desc_act); groups of a "
                    "packed checkpoint are columns side by side"
                )
