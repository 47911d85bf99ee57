"""What a contestant's training step must give before it is timed: its loss by definition, a gradient everywhere."""

from typing import Any

import plain
import separate_passes
import torch
from forward_pass import ExactLogits, ForwardPass
from torch import Tensor
from torch.nn import functional
from training_contestants import FEATURES, FORWARD_KL, FULL, LAYERS, LOGITS, ORIGINAL, SEPARATE, SUPPORT, TASK, Step

# The definition starts from hidden states and logits, or the operands of logits, of the very pass that the loss came
# from. So no code can have flipped between the two, on any processor; what differs is how float32 rounds. A logit is a
# sum of up to 1024 products whose magnitudes add up to about 100, and rounding to 24 bits leaves it off by 1e-6 to
# 1e-5, up or down. A row's loss changes by at most that times the sum of its derivatives by the logits, which is at
# most 2 for a cross entropy or forward KL; in the mean over rows such errors cancel. Measured: 2e-7. A wrong formula
# shows: a uniform support of 17 in place of 16 is off by 1e-3.
LIMIT = 1e-5
# The original release and what follows its description round inside the loss, under autocast to 8 bits; so do logits of
# the teacher that ours keeps in bfloat16 on CUDA.
LIMIT_ROUNDED = {False: 1e-4, True: 2e-2}


def gate(step: Step) -> dict[str, float]:
    """The loss against its definition on what the contestant's own pass computed; gradients; bytes kept for backward.

    Raises:
        GateError: the loss differs, a parameter gets no finite gradient, or trained scales give other values or get
            another gradient than they should.
    """
    kept: dict[int, int] = {}
    owned = {tensor.untyped_storage().data_ptr() for tensor in (*step.student.parameters(), *step.teacher.parameters())}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in owned:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with (
        ForwardPass(step.student) as student,
        ForwardPass(step.teacher) as teacher,
        torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor),
    ):
        loss = step.loss()
    rounds = step.name in (ORIGINAL, SEPARATE) or step.device.type == "cuda"
    limit = LIMIT_ROUNDED[step.autocast] if rounds else LIMIT
    difference = plain.check("the loss", plain.relative(loss.detach(), defined_loss(step, student, teacher)), limit)
    loss.backward()
    lacking = [
        name
        for name, parameter in step.student.named_parameters()
        if parameter.grad is None or not bool(torch.isfinite(parameter.grad).all()) or not bool(parameter.grad.any())
    ]
    for name, (layer, scales) in step.scales.items():
        _check_scales(name, layer, scales)
    step.optimizer.zero_grad(set_to_none=True)
    if lacking:
        raise plain.GateError(f"no finite gradient reaches {', '.join(lacking[:3])} ({len(lacking)} in all)")
    return {"difference": difference, "kept_mib": sum(kept.values()) / 2**20}


@torch.no_grad()
def _check_scales(name: str, layer: Any, scales: Any) -> None:
    """Before the first step ternary values are those of the data's scales; the gradient is LSQ's, in float64."""
    expected = plain.fake_quantized(layer.weight, "ternary")
    plain.check(f"the value of {name}", plain.relative(scales.fake_quantize(layer.weight), expected), 0.0)
    steps = (layer.weight.reshape(scales.start.numel(), -1) / scales.start.reshape(-1, 1)).double()
    scales.set_gradient(layer.weight, layer.weight.grad)
    slope = torch.where(steps.abs() > 1, steps.sign(), steps.round() - steps)
    terms = layer.weight.grad.double().reshape(steps.shape) * slope
    found, start = scales.factors.grad.flatten(), scales.start.double().flatten()
    scales.factors.grad = None
    error = (found - terms.sum(dim=-1) * start).abs() / (terms.abs().sum(dim=-1) * start).clamp(min=1e-30)
    plain.check(f"the gradient of the scales of {name}", float(error.max()), LIMIT)


@torch.no_grad()
def defined_loss(step: Step, student: ForwardPass, teacher: ForwardPass) -> Tensor:
    """What the contestant's loss should be, in float64, from what its forward passes computed."""
    with torch.autocast(step.device.type, torch.bfloat16, enabled=step.autocast):
        mine = ExactLogits(student, autocast=True)
        theirs = ExactLogits(teacher, autocast=False) if teacher.states else mine
    labels = functional.pad(step.batch["labels"][:, 1:], (0, 1), value=-100).flatten()
    # The original release floors probabilities and counts every labelled position (METHOD 10, F1 and F2).
    floor = separate_passes.FLOOR if step.name in (ORIGINAL, SEPARATE) else None
    mask = step.batch["labels"] >= 0 if step.name == ORIGINAL else step.mask
    rows = plain.divergences_in_parts(mine, theirs, labels, floor)
    task = rows.task.sum() / (labels >= 0).sum()
    if step.name == FULL:
        total = task
    elif step.name == FORWARD_KL:
        total = plain.sequence_mean(rows.forward, mask)
    else:
        features = _defined_features(student.states, teacher.states)
        total = LOGITS * plain.eakld(rows, mask, SUPPORT) + FEATURES * features + TASK * task
    return total / step.micro_batches


def _defined_features(student: list[Tensor], teacher: list[Tensor]) -> Tensor:
    exact = [state.double() for state in teacher]
    cosines = [functional.cosine_similarity(exact[i + 1], exact[i], dim=-1).mean() for i in range(len(exact) - 1)]
    chosen = torch.stack(cosines).argsort()[:LAYERS] + 1
    return torch.stack([(student[i].double() - exact[i]).square().mean() for i in chosen.tolist()]).mean()
