"""What losses learn themselves, in the same optimizer as the student (`DistillationLoss.module`)."""

from typing import Any

import torch
from torch import Tensor, distributed

from edgerazor.distill import Distiller
from edgerazor.distill.state import learned_modules
from edgerazor.errors import TrainingError


def prepare_learned(distiller: Distiller, device: torch.device, *, world_size: int, sharded: bool) -> None:
    """Put the modules on the device; let their gradients be averaged over ranks, as a wrapper does the student's.

    Raises:
        TrainingError: the student is sharded, so its optimizer takes no parameters of others.
    """
    modules = learned_modules(distiller)
    if modules and sharded:
        raise TrainingError(
            f"{', '.join(modules)}: a learned projection cannot be trained beside a sharded student; train without "
            "FSDP, or take a teacher of the student's width"
        )
    for module in modules.values():
        module.to(device)
        for parameter in module.parameters() if world_size > 1 else ():
            parameter.register_post_accumulate_grad_hook(_average)


def add_to_optimizer(distiller: Distiller, optimizer: torch.optim.Optimizer, *, max_grad_norm: float) -> None:
    """Let an optimizer train what losses learn, as a group without weight decay that is clipped by itself.

    The Trainer clips gradients of the student alone, and forgets those alone after a step; here hooks do both.
    """
    parameters = [parameter for module in learned_modules(distiller).values() for parameter in module.parameters()]
    if not parameters:
        return
    optimizer.add_param_group({"params": parameters, "weight_decay": 0.0})

    def clip(*_: Any) -> None:
        if max_grad_norm > 0:
            torch.nn.utils.clip_grad_norm_(parameters, max_grad_norm)

    def forget(*_: Any) -> None:
        for parameter in parameters:
            parameter.grad = None

    optimizer.register_step_pre_hook(clip)
    optimizer.register_step_post_hook(forget)


def _average(parameter: Tensor) -> None:
    """Average a gradient over all ranks after every micro-batch; the mean of an average is the average."""
    assert parameter.grad is not None
    distributed.all_reduce(parameter.grad)
    parameter.grad /= distributed.get_world_size()
