"""A teacher whose weights wait in the computer's memory and come to the device for its own forward pass alone.

The student's forward and backward pass then have the device to themselves; the price is one copy of the teacher's
weights over the bus per forward pass. Nothing is copied back: a teacher does not change.
"""

from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn


def offload(model: nn.Module, device: torch.device) -> None:
    """Keep the weights of a frozen model in the computer's memory, and on `device` while it runs.

    Tensors that its forward pass hands out stay on the device, aliases of weights among them.

    Raises:
        ValueError: a parameter is trained.
    """
    if any(parameter.requires_grad for parameter in model.parameters()):
        raise ValueError("only a frozen model can be offloaded: what is trained would be lost on the device")
    waiting = [(tensor, _held(tensor.data, device)) for tensor in chain(model.parameters(), model.buffers())]

    def bring(*_: Any) -> None:
        for tensor, held in waiting:
            tensor.data = held.to(device, non_blocking=True, copy=True)

    def leave(*_: Any) -> None:
        for tensor, held in waiting:
            tensor.data = held

    leave()
    model.register_forward_pre_hook(bring)
    model.register_forward_hook(leave, always_call=True)


def _held(tensor: Tensor, device: torch.device) -> Tensor:
    """In pinned memory where a GPU will read it."""
    return tensor.cpu().pin_memory() if device.type == "cuda" else tensor.cpu()
