"""How matrices lie in a folder, and what config.json says of them: the layout `pack-quantized`."""

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from edgerazor.core.tensor import QuantizedTensor

FORMAT = "pack-quantized"
# Of the package whose layout this is.
VERSION = "0.20.0"
WIDTHS = (2, 4, 8)
LARGEST_GROUP = 128
_ELEMENTS_AT_ONCE = 1 << 22
_ROOMS = {2: 4, 4: 2, 8: 1}


@dataclass(frozen=True, order=True)
class Scheme:
    """What one group of config.json says of its matrices.

    Attributes:
        bits: of a code.
        group_size: columns that share a scale, 0 if a whole row does.
        activations: the input of the product is rounded to int8, with one scale a token.
    """

    bits: int
    group_size: int
    activations: bool = False

    def describe(self) -> dict[str, Any]:
        """Its content, without the targets."""
        group = {"strategy": "group", "group_size": self.group_size} if self.group_size else {"strategy": "channel"}
        inputs = {"num_bits": 8, "type": "int", "symmetric": True, "strategy": "token", "dynamic": True}
        return {
            "weights": {"num_bits": self.bits, "type": "int", "symmetric": True, **group, "dynamic": False},
            "input_activations": inputs if self.activations else None,
            "format": FORMAT,
        }


def quantization_config(schemes: Mapping[str, Scheme], ignored: Iterable[str]) -> dict[str, Any]:
    """The `quantization_config` of config.json.

    Args:
        schemes: by module.
        ignored: modules whose weights are not quantized.
    """
    groups: dict[Scheme, list[str]] = {}
    for module, scheme in schemes.items():
        groups.setdefault(scheme, []).append(f"re:^{re.escape(module)}$")
    return {
        "quant_method": "compressed-tensors",
        "format": FORMAT,
        "quantization_status": "compressed",
        "kv_cache_scheme": None,
        "ignore": sorted(ignored),
        "config_groups": {
            f"group_{number}": {"targets": groups[scheme], **scheme.describe()}
            for number, scheme in enumerate(sorted(groups))
        },
        "version": VERSION,
    }


def width(codes: Tensor) -> int:
    """Bits of the narrowest integers that hold all codes."""
    low, high = (int(value) for value in torch.aminmax(codes))
    return next(bits for bits in WIDTHS if low >= -(1 << bits - 1) and high < 1 << bits - 1)


def declared_group(group_size: int, columns: int) -> int:
    """The group size that engines are told: at most 128, which divides the true one; 0 if a scale is a whole row's."""
    if group_size == columns:
        return 0
    if group_size <= LARGEST_GROUP:
        return group_size
    return math.gcd(group_size, LARGEST_GROUP)


def shared_group(sizes: Iterable[int], columns: int) -> int:
    """A group size for matrices that share a scheme; `sizes` are theirs, 0 for whole rows."""
    distinct = set(sizes)
    return distinct.pop() if len(distinct) == 1 else math.gcd(*(size or columns for size in distinct), LARGEST_GROUP)


def row_slices(rows: int, columns: int) -> Iterable[slice]:
    """Slices of rows that bound what is copied at a time."""
    some = max(1, _ELEMENTS_AT_ONCE // max(columns, 1))
    return [slice(start, min(start + some, rows)) for start in range(0, rows, some)]


def packed_tensors(value: QuantizedTensor, scheme: Scheme, dtype: torch.dtype) -> dict[str, Tensor]:
    """A matrix `[R, C]` by name in its module: int32 words, scales in `dtype`, which holds them, and int64 shape."""
    rows, columns = value.codes.shape
    return {
        "weight_packed": torch.cat([pack_words(value.codes[part], scheme.bits) for part in row_slices(rows, columns)]),
        "weight_scale": repeated_scales(value, scheme).to(dtype),
        "weight_shape": torch.tensor([rows, columns]),
    }


def pack_words(codes: Tensor, bits: int) -> Tensor:
    """Codes `[R, C]` to int32 `[R, ceil(C * bits / 32)]`: `code + 2^(bits-1)` of column i from bit `i * bits` on."""
    padded = torch.nn.functional.pad(codes, (0, -codes.shape[1] % (32 // bits)), value=-(1 << bits - 1))
    stored = padded.add(1 << bits - 1).view(torch.uint8).unflatten(-1, (-1, _ROOMS[bits]))
    packed = stored[..., 0].clone()
    for place in range(1, _ROOMS[bits]):
        packed |= stored[..., place] << place * bits
    return packed.contiguous().view(torch.int32)


def repeated_scales(value: QuantizedTensor, scheme: Scheme) -> Tensor:
    """float16 `[R, C / group]`: each scale as often as groups are smaller than they were."""
    scale = value.scale.reshape(value.codes.shape[0], -1)
    return scale.repeat_interleave(value.group_size // (scheme.group_size or value.group_size), dim=1).contiguous()


def dequantized(value: QuantizedTensor, dtype: torch.dtype) -> Tensor:
    """The values of a matrix, rounded once to `dtype`; few float32 copies at a time."""
    result = torch.empty(value.codes.shape, dtype=dtype)
    for part in row_slices(*result.shape):
        result[part] = QuantizedTensor(
            value.codes[part], value.scale[part], value.qmax[part], value.group_size
        ).dequantize(dtype)
    return result
