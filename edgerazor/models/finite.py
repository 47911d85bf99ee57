"""Weights that are numbers: from NaN and infinity nothing can be quantized."""

import torch
from torch import Tensor

from edgerazor.errors import CheckpointError


def check_finite(tensor: Tensor, where: str) -> None:
    """Raise CheckpointError that begins with `where` if a tensor holds NaN or infinity."""
    if not bool(torch.isfinite(tensor).all()):
        raise CheckpointError(f"{where} holds NaN or infinite values; nothing can be quantized from it")
