"""Codes at their true size (packed format, version 1): five ternary codes or two 4-bit codes a byte, rows aligned.

A matrix has one or two kinds of rows, told apart by qmax. Each kind is packed as `t5`, `i4` or `i8`; a bitmap says
which rows are of the wider kind. Nothing here rounds.
"""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor

from edgerazor.core.tensor import QuantizedTensor
from edgerazor.errors import CheckpointError

Tensors = dict[str, Tensor]
STORAGES = ("t5", "i4", "i8")
_CODES_PER_BYTE = {"t5": 5, "i4": 2, "i8": 1}
_CODES_AT_ONCE = 1 << 24  # packed in one go; bounds the copies of a large embedding


@dataclass(frozen=True)
class Layout:
    """How one matrix is stored.

    Attributes:
        storage: one entry per kind of row, narrow first: "t5", "i4" or "i8".
        qmax: the width of each kind.
        group_size: columns per scale.
        wide_rows: rows of the wider kind; 0 if there is one kind.
    """

    storage: tuple[str, ...]
    qmax: tuple[int, ...]
    group_size: int
    wide_rows: int = 0

    def shapes(self, rows: int, columns: int) -> dict[str, tuple[tuple[int, ...], torch.dtype]]:
        """`{suffix: (shape, dtype)}` of the tensors that hold a matrix `[rows, columns]`."""
        counts = [rows - self.wide_rows, self.wide_rows] if len(self.qmax) == 2 else [rows]
        stored: dict[str, int] = {}
        for storage, count in zip(self.storage, counts, strict=True):
            stored[storage] = stored.get(storage, 0) + count
        result: dict[str, tuple[tuple[int, ...], torch.dtype]] = {
            f"weight_{storage}": (
                (count, -(-columns // _CODES_PER_BYTE[storage])),
                torch.int8 if storage == "i8" else torch.uint8,
            )
            for storage, count in stored.items()
        }
        result["weight_scale"] = ((rows, columns // self.group_size), torch.float16)
        if len(self.qmax) == 2:
            result["weight_rows"] = ((-(-rows // 8),), torch.uint8)
        return result


def storage_of(qmax: int, symmetric: bool) -> str:
    """The narrowest storage that holds codes of this width."""
    if qmax == 1 and symmetric:
        return "t5"
    return "i4" if qmax <= 7 else "i8"


def packed_bytes(shape: tuple[int, ...], widths: Mapping[int, int], group_size: int, *, symmetric: bool = True) -> int:
    """Bytes a matrix will take, from its shape and `{qmax: weights}`; scales and row bitmap included."""
    rows, columns = prod(shape[:-1]), shape[-1]
    qmax = tuple(sorted(widths))
    wide = -(-widths[qmax[-1]] // columns) if len(qmax) == 2 else 0
    layout = Layout(tuple(storage_of(width, symmetric) for width in qmax), qmax, group_size, wide)
    return sum(prod(size) * dtype.itemsize for size, dtype in layout.shapes(rows, columns).values())


def pack(tensor: QuantizedTensor) -> tuple[Layout, Tensors]:
    """Pack a matrix; keys are `weight_t5`, `weight_i4`, `weight_i8`, `weight_scale` and `weight_rows`.

    Raises:
        CheckpointError: scales are not float16, or there are more than two kinds of rows.
    """
    if tensor.scale.dtype != torch.float16:
        raise CheckpointError(
            f"scales are {str(tensor.scale.dtype).removeprefix('torch.')}; a packed checkpoint holds float16 scales: "
            "train with scale_dtype: float16"
        )
    codes = tensor.codes.reshape(-1, tensor.codes.shape[-1])
    widest = tensor.widest_qmax()
    kinds = tuple(int(value) for value in widest.unique())
    if len(kinds) > 2:
        raise CheckpointError(f"rows of {len(kinds)} widths {kinds} in one matrix; the packed format holds two")
    wide = widest == kinds[-1] if len(kinds) == 2 else torch.zeros_like(widest, dtype=torch.bool)
    storages = tuple(storage_of(kind, tensor.symmetric) for kind in kinds)
    tensors: Tensors = {}
    for storage in dict.fromkeys(storages):
        chosen = codes if len(set(storages)) == 1 else codes[wide == (storage == storages[-1])]
        some = max(1, _CODES_AT_ONCE // max(chosen.shape[1], 1))
        tensors[f"weight_{storage}"] = torch.cat([_PACKERS[storage](rows) for rows in chosen.split(some)])
    tensors["weight_scale"] = tensor.scale.reshape(codes.shape[0], -1).contiguous()
    if len(kinds) == 2:
        tensors["weight_rows"] = pack_bits(wide)
    return Layout(storages, kinds, tensor.group_size, int(wide.sum())), tensors


def unpack(layout: Layout, tensors: Mapping[str, Tensor], columns: int) -> QuantizedTensor:
    """The inverse of `pack`; `columns` is the width of the matrix, which padding hides."""
    scale = tensors["weight_scale"]
    rows, device = scale.shape[0], scale.device
    kinds = [_UNPACKERS[name](tensors[f"weight_{name}"], columns) for name in dict.fromkeys(layout.storage)]
    qmax = torch.full((rows,), layout.qmax[0], dtype=torch.int8, device=device)
    codes = kinds[0]
    if len(layout.qmax) == 2:
        wide = unpack_bits(tensors["weight_rows"], rows)
        qmax[wide] = layout.qmax[1]
        if len(kinds) == 2:
            codes = torch.empty(rows, columns, dtype=torch.int8, device=device)
            codes[~wide], codes[wide] = kinds
    return QuantizedTensor(codes, scale, qmax, layout.group_size)


def pack_t5(codes: Tensor) -> Tensor:
    """Codes -1..1 `[R, C]` to uint8 `[R, ceil(C/5)]`: sum of (q + 1) * 3^i over five columns, tail of code 0."""
    digits = _padded(codes, 5).add(1).to(torch.uint8).unflatten(-1, (-1, 5))
    result = digits[..., 0].clone()
    for index in range(1, 5):
        result += digits[..., index] * 3**index
    return result


def unpack_t5(packed: Tensor, columns: int) -> Tensor:
    """Inverse of `pack_t5`, by a table of 256 x 5 codes."""
    some = max(1, _CODES_AT_ONCE // max(columns, 1))
    if len(packed) > some:  # what a look-up takes is several times its result
        codes = torch.empty(len(packed), columns, dtype=torch.int8, device=packed.device)
        for part, rows in zip(packed.split(some), codes.split(some), strict=True):
            rows.copy_(unpack_t5(part, columns))
        return codes
    bytes_ = torch.arange(256, dtype=torch.int16, device=packed.device)
    table = torch.stack([bytes_ // 3**index % 3 - 1 for index in range(5)], dim=-1).to(torch.int8)
    return table[packed.long()].flatten(-2)[:, :columns].contiguous()


def pack_i4(codes: Tensor) -> Tensor:
    """Codes -8..7 `[R, C]` to uint8 `[R, ceil(C/2)]`: the even column in the low nibble, code + 8."""
    nibbles = _padded(codes, 2).add(8).to(torch.uint8).unflatten(-1, (-1, 2))
    return nibbles[..., 0] | (nibbles[..., 1] << 4)


def unpack_i4(packed: Tensor, columns: int) -> Tensor:
    """Inverse of `pack_i4`."""
    pairs = packed.to(torch.int16)
    pairs |= pairs << 4
    pairs &= 0x0F0F  # on a little-endian machine, the low nibble's byte comes first
    return pairs.view(torch.int8)[:, :columns].sub_(8)


def pack_bits(bits: Tensor) -> Tensor:
    """bool `[R]` to uint8 `[ceil(R/8)]`: bit i mod 8 of byte i div 8."""
    padded = torch.nn.functional.pad(bits.to(torch.uint8), (0, -len(bits) % 8)).unflatten(0, (-1, 8))
    weights = torch.tensor([1 << index for index in range(8)], dtype=torch.uint8, device=bits.device)
    return (padded * weights).sum(dim=-1, dtype=torch.uint8)


def unpack_bits(packed: Tensor, count: int) -> Tensor:
    """Inverse of `pack_bits`: bool `[count]`."""
    shifts = torch.arange(8, dtype=torch.uint8, device=packed.device)
    return ((packed.unsqueeze(-1) >> shifts) & 1).flatten()[:count].bool()


class ContentDigest:
    """sha256 over names, codes, scales and widths of matrices, fed by sorted name: the same in every format."""

    def __init__(self) -> None:
        self._digest = hashlib.sha256()

    def update(self, name: str, tensor: QuantizedTensor) -> None:
        """Add a matrix, `name` without ".weight"."""
        codes = tensor.codes.reshape(-1, tensor.codes.shape[-1])
        self._digest.update(name.encode() + b"\0")
        self._digest.update(codes.shape[0].to_bytes(8, "little") + codes.shape[1].to_bytes(8, "little"))
        for part in (codes, tensor.scale, tensor.widest_qmax()):
            self._digest.update(part.detach().cpu().contiguous().numpy().data)

    def hexdigest(self) -> str:
        """The digest of what was added so far."""
        return self._digest.hexdigest()


def content_digest(tensors: Iterable[tuple[str, QuantizedTensor]]) -> str:
    """The digest of matrices in the order given; see `ContentDigest`."""
    digest = ContentDigest()
    for name, tensor in tensors:
        digest.update(name, tensor)
    return digest.hexdigest()


def _padded(codes: Tensor, multiple: int) -> Tensor:
    return torch.nn.functional.pad(codes, (0, -codes.shape[-1] % multiple))


def _keep_i8(codes: Tensor) -> Tensor:
    return codes.to(torch.int8).contiguous()


def _read_i8(packed: Tensor, columns: int) -> Tensor:
    return packed


_PACKERS = {"t5": pack_t5, "i4": pack_i4, "i8": _keep_i8}
_UNPACKERS = {"t5": unpack_t5, "i4": unpack_i4, "i8": _read_i8}
