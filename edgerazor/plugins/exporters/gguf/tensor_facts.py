"""What decides how a tensor can be stored, found in one pass over the checkpoint; nothing of the tensors is kept."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from edgerazor.core.contracts import Checkpoint, NamedTensors, TensorRole
from edgerazor.core.tensor import QuantizedTensor, mean_bits
from edgerazor.plugins.exporters.gguf.blocks import SMALLEST_SCALE

_COMPARED = ("embedding", "head")


@dataclass(frozen=True)
class TensorFacts:
    """One tensor, without its values.

    Attributes:
        name: in the checkpoint.
        role: the part that it plays.
        shape: `(rows, columns)`, or `(length,)`.
        dtype: of a tensor that is not quantized, else None.
        group_size: columns per scale; 0 if it is not quantized.
        lowest, highest: codes that occur.
        widths: `{qmax: number of weights}`.
        nominal_bits: of the codes alone.
        scale_problem: what is wrong with its scales or values, or "".
        fingerprint: hash of embedding and head, to know whether they are the same.
    """

    name: str
    role: TensorRole
    shape: tuple[int, ...]
    dtype: torch.dtype | None = None
    group_size: int = 0
    lowest: int = 0
    highest: int = 0
    widths: Mapping[int, int] | None = None
    nominal_bits: float = 16.0
    scale_problem: str = ""
    fingerprint: bytes = b""

    @property
    def module(self) -> str:
        """Name as recipes and messages say it."""
        return self.name.removesuffix(".weight")

    @property
    def quantized(self) -> bool:
        return self.group_size > 0

    @property
    def weights(self) -> int:
        return torch.Size(self.shape).numel()

    @property
    def mixed(self) -> bool:
        """Ternary and wider rows, or groups, in one matrix."""
        return len(self.widths or ()) > 1 and 1 in (self.widths or ())


def collect_tensor_facts(checkpoint: Checkpoint, tensors: NamedTensors) -> list[TensorFacts]:
    """Facts about every tensor, in the order given; one tensor is in memory at a time."""
    found = []
    for name, value in tensors:
        role = checkpoint.role(name)
        if isinstance(value, QuantizedTensor):
            found.append(_quantized_facts(name, role, value))
        else:
            found.append(_plain_facts(name, role, value))
    return found


def _quantized_facts(name: str, role: TensorRole, tensor: QuantizedTensor) -> TensorFacts:
    rows, columns = tensor.codes.shape
    values, counts = tensor.qmax.unique(return_counts=True)
    per_entry = columns if tensor.qmax.ndim == 1 else tensor.group_size
    widths = {int(value): int(count) * per_entry for value, count in zip(values, counts, strict=True)}
    lowest, highest = (int(value) for value in torch.aminmax(tensor.codes))
    symmetric = lowest >= -min(widths) or tensor.symmetric
    return TensorFacts(
        name,
        role,
        (rows, columns),
        group_size=tensor.group_size,
        lowest=lowest,
        highest=highest,
        widths=widths,
        nominal_bits=mean_bits(widths, symmetric),
        scale_problem=_scale_problem(tensor.scale),
        fingerprint=_fingerprint(tensor.codes, tensor.scale) if role.kind in _COMPARED else b"",
    )


def _plain_facts(name: str, role: TensorRole, tensor: Tensor) -> TensorFacts:
    problem = ""
    if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
        problem = "holds NaN or infinite values"
    fingerprint = _fingerprint(tensor) if role.kind in _COMPARED else b""
    return TensorFacts(
        name, role, tuple(tensor.shape), dtype=tensor.dtype, scale_problem=problem, fingerprint=fingerprint
    )


def _scale_problem(scale: Tensor) -> str:
    magnitude = scale.abs()
    infinite = int((~torch.isfinite(scale)).sum())
    subnormal = int(((magnitude > 0) & (magnitude < SMALLEST_SCALE)).sum())
    inexact = int((torch.isfinite(scale) & (scale.to(torch.float16).to(scale.dtype) != scale)).sum())
    problems = []
    if subnormal:
        problems.append(f"{subnormal} scales lie below 2**-14 (subnormal in the file)")
    if infinite:
        problems.append(f"{infinite} {'are' if subnormal else 'scales are'} not finite")
    if inexact and not subnormal:
        problems.append(f"{inexact} scales are no float16 numbers; train with scale_dtype: float16")
    return "; ".join(problems)


def _fingerprint(*parts: Tensor) -> bytes:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(str((part.dtype, tuple(part.shape))).encode())
        digest.update(part.contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.digest()
