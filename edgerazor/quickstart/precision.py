"""Which arithmetic is faster here: bf16 autocast may help where the device has it, and halves the speed where not."""

import time

import torch
from torch import nn

from edgerazor.kernels.processor import this_processor


def bf16_is_faster(model: nn.Module, device: torch.device, *, steps: int = 3) -> bool:
    """Whether bf16 autocast pays; a processor without bfloat16 is not measured, since emulation is never faster.

    Time a small forward and backward in float32 and under bf16 autocast; the best of `steps` each counts.
    """
    if device.type == "cpu" and not this_processor().bfloat16:
        return False
    ids = torch.randint(0, 256, (4, 256), device=device, generator=torch.Generator(device).manual_seed(0))
    embeddings = model.get_input_embeddings()(ids).detach().float().requires_grad_(True)  # type: ignore[operator]
    return _best_time(model, embeddings, True, steps) < 0.9 * _best_time(model, embeddings, False, steps)


def _best_time(model: nn.Module, embeddings: torch.Tensor, autocast: bool, steps: int) -> float:
    best = float("inf")
    for _ in range(steps + 1):
        started = time.perf_counter()
        with torch.autocast(embeddings.device.type, dtype=torch.bfloat16, enabled=autocast):
            model(inputs_embeds=embeddings, use_cache=False).logits.float().sum().backward()
        if embeddings.device.type != "cpu":
            torch.accelerator.synchronize()
        best = min(best, time.perf_counter() - started)
    return best
