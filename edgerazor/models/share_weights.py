"""One copy in memory of what teacher and student both have and neither changes."""

import torch
from torch import Tensor, nn


def share_frozen_weights(student: nn.Module, teacher: nn.Module) -> int:
    """Let a frozen teacher use the student's own tensor wherever that is frozen too and holds the same numbers.

    A student that trains its quantized weights alone keeps norms, and a 16-bit head or embedding, as its teacher has
    them. Tensors must agree in name, shape, dtype and device. Nothing may write into them afterwards: who changes a
    frozen parameter gives it other memory.

    Returns:
        Bytes that are no longer held twice.
    """
    twins = dict(student.named_parameters())
    saved = 0
    for name, parameter in teacher.named_parameters():
        twin = twins.get(name)
        if twin is not None and not twin.requires_grad and not parameter.requires_grad and _same(twin, parameter):
            saved += 0 if twin.data_ptr() == parameter.data_ptr() else parameter.nbytes
            parameter.data = twin.data
    return saved


def _same(one: Tensor, other: Tensor) -> bool:
    alike = (one.shape, one.dtype, one.device) == (other.shape, other.dtype, other.device)
    return alike and torch.equal(one, other)
