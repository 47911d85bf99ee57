"""Scales that an optimizer trains beside the weights (`training.scale_learning_rate`)."""

from collections.abc import Mapping
from typing import Any

import torch

from edgerazor.core.learned_scales import LearnedScales


def add_scales(
    scales: Mapping[str, tuple[Any, LearnedScales]], optimizer: torch.optim.Optimizer, learning_rate: float
) -> None:
    """Let an optimizer train the factors of scales, as a group without weight decay.

    Their gradient follows from that of the weights once it is complete: accumulated, averaged over ranks and clipped.

    Args:
        scales: layers and their scales.
        learning_rate: at its peak; a factor is 1 at the beginning, so it is relative to the scale.
    """
    for layer, found in scales.values():
        found.to(layer.weight.device)
    factors = [found.factors for _, found in scales.values()]
    optimizer.add_param_group({"params": factors, "weight_decay": 0.0, "lr": learning_rate})

    def follow(*_: Any) -> None:
        for layer, found in scales.values():
            if layer.weight.grad is not None:
                found.set_gradient(layer.weight.detach(), layer.weight.grad)

    def forget(*_: Any) -> None:
        for factor in factors:
            factor.grad = None

    optimizer.register_step_pre_hook(follow)
    optimizer.register_step_post_hook(forget)
