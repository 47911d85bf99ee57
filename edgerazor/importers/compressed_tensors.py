"""compressed-tensors, format `pack-quantized`: symmetric integers in 32-bit words along the columns.

Layout: `weight_packed` int32 `[R, C * bits / 32]`, `weight_scale` `[R, G]`, `weight_shape`; stored is
code + 2^(bits - 1) (compressed-tensors 0.20, `compressors/pack_quantized`).
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from edgerazor.core.tensor import QuantizedTensor
from edgerazor.errors import CheckpointError
from edgerazor.importers.formats import CONFIG, Folder
from edgerazor.importers.grids import quantized_tensor
from edgerazor.importers.words import unpack_words

FORMAT = "pack-quantized"
_PARTS = ("weight_packed", "weight_scale", "weight_shape", "weight_zero_point", "weight_g_idx")
# Words without gaps; earlier versions left gaps at 3, 5, 6 and 7 bits, and had more words.
_BITS = range(2, 9)


class PackQuantized:
    """Reads one folder.

    Raises:
        CheckpointError: it has another format, zero points, or orders columns by their activations.
    """

    kind = "compressed-tensors pack-quantized"

    def __init__(self, folder: Folder, section: Mapping[str, Any]):
        self._folder, self._where = folder, f"{folder.path / CONFIG}: quantization_config"
        groups = section.get("config_groups")
        if not isinstance(groups, Mapping) or not all(isinstance(group, Mapping) for group in groups.values()):
            raise CheckpointError(f"{self._where}.config_groups: expected schemes by name")
        formats = {section.get("format"), *(group.get("format") or section.get("format") for group in groups.values())}
        if others := formats - {FORMAT, "mixed-precision"}:
            found = ", ".join(sorted(map(str, others)))
            raise CheckpointError(f"{self._where}.format: is {found}; of compressed-tensors {FORMAT} can be read")
        for label, group in groups.items():
            self._check_scheme(f"{self._where}.config_groups.{label}", group.get("weights") or {})
        suffix = ".weight_packed"
        self._modules = sorted(name.removesuffix(suffix) for name in folder.headers if name.endswith(suffix))
        stored = {f"{module}.{part}" for module in self._modules for part in _PARTS}
        self.consumed = frozenset(stored & folder.headers.keys())
        for part in ("weight_zero_point", "weight_g_idx"):
            if refused := sorted(name for name in self.consumed if name.endswith(part)):
                meant = "zero points" if "zero" in part else "columns ordered by activations"
                raise CheckpointError(f"{folder.path}: {refused[0]}: {meant} have no place in a packed checkpoint")
        self.activations, self.notes = _activations(list(groups.values()))

    def _check_scheme(self, where: str, weights: Mapping[str, Any]) -> None:
        if weights.get("type", "int") != "int" or weights.get("symmetric", True) is not True:
            raise CheckpointError(f"{where}.weights: expected symmetric integers")
        if weights.get("actorder") not in (None, False, "weight", "static"):
            raise CheckpointError(f"{where}.weights.actorder: is {weights['actorder']!r}; expected none")

    def modules(self) -> list[str]:
        return self._modules

    def read(self, module: str) -> QuantizedTensor:
        words, scale, shape = (self._folder.read(f"{module}.{part}") for part in _PARTS[:3])
        where = f"{self._folder.path}: {module}.weight_packed"
        rows, columns = _shape_of(shape, where)
        widths = (bits for bits in _BITS if tuple(words.shape) == (rows, -(-columns * bits // 32)))
        bits = next(widths, 0)
        if not bits or words.dtype != torch.int32:
            raise CheckpointError(
                f"{where}: {str(words.dtype).removeprefix('torch.')} {list(words.shape)} are no {rows} rows of "
                f"{columns} columns in 2 to 8 bits"
            )
        scale = scale.reshape(1, 1).expand(rows, 1) if scale.numel() == 1 else scale.reshape(rows, -1)
        if columns % scale.shape[1]:
            raise CheckpointError(f"{where}: {scale.shape[1]} scales a row do not divide {columns} columns")
        codes = (unpack_words(words, bits, columns).to(torch.int16) - 2 ** (bits - 1)).to(torch.int8)
        return quantized_tensor(codes, scale, bits, where)


def _shape_of(shape: Tensor, where: str) -> tuple[int, int]:
    found = [int(size) for size in shape.flatten().tolist()]
    if len(found) != 2 or min(found) < 1:
        raise CheckpointError(f"{where}: weight_shape is {found}; expected rows and columns")
    return found[0], found[1]


def _activations(groups: list[Mapping[str, Any]]) -> tuple[dict[str, Any] | None, tuple[str, ...]]:
    """The quantizer that all schemes share, if it is one that we have: dynamic integers, one scale a token."""
    stated = [group.get("input_activations") for group in groups]
    if not any(stated):
        return None, ()
    first: Any = stated[0]
    known = {"type": "int", "symmetric": True, "strategy": "token", "dynamic": True}
    same = all(other == first for other in stated) and isinstance(first, Mapping)
    if same and {key: first.get(key) for key in known} == known:
        return {"name": "int", "bits": int(first.get("num_bits", 8)), "group_size": None}, ()
    return None, (
        "activations were quantized otherwise than token by token in symmetric integers; they stay 16 bit here",
    )
