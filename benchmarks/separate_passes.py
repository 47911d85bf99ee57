"""Separate passes, as METHOD.md describes the original release: our own reconstruction, NOT the original.

It follows that description: every pass is a tensor operation of its own, values are taken as x + (y - x).detach(),
scales stay in the working dtype, every use of a weight quantizes it again, the embedding quantizes its whole table,
logits are whole, and both divergences start from probabilities with a floor. It shows such a step where the original
release is not installed, and is never a substitute for that release's own figures.
"""

import math
from itertools import pairwise
from typing import Any

import torch
from plain import EVERY, GROUP, HIGHEST
from torch import Tensor, nn
from torch.nn import functional

FLOOR = 1e-8


def fake_quantize(x: Tensor, kind: str) -> Tensor:
    """`x [..., C]`, about nine passes, then two for the gradient to pass straight through."""
    groups = x.detach().clone().reshape(-1, GROUP)
    if kind == "sqmp":
        high = (torch.arange(x.shape[0], device=x.device) % EVERY == 0).repeat_interleave(x.shape[1] // GROUP)
        value = _grid(groups, "ternary")
        value[high] = _grid(groups[high], "int4")
    else:
        value = _grid(groups, kind)
    return x + (value.reshape(x.shape) - x).detach()


def _grid(groups: Tensor, kind: str) -> Tensor:
    magnitudes = groups.abs()
    if kind == "ternary":
        scale = (magnitudes.mean(dim=-1, keepdim=True) * 2).clamp(min=1e-5)
    else:
        scale = magnitudes.amax(dim=-1, keepdim=True).clamp(min=1e-5) / HIGHEST[kind]
    codes = (groups / scale).round().clamp(-HIGHEST[kind], HIGHEST[kind])
    return codes * scale


def eakld(z: Tensor, u: Tensor, mask: Tensor, support: int = 16) -> Tensor:
    """From whole logits `[B, S, V]`; each divergence takes its own softmax, as described in METHOD 10."""
    probabilities = u.softmax(dim=-1)
    entropy = -(probabilities * (probabilities + FLOOR).log()).sum(dim=-1)
    gamma = (1 - _mean(entropy, mask) / math.log(support)).clamp(0, 1)
    reverse = _divergence(z, u, mask)
    forward = _divergence(u, z, mask)
    return gamma * reverse + (1 - gamma) * forward


def _divergence(a: Tensor, b: Tensor, mask: Tensor) -> Tensor:
    """KL(a, b) with floored probabilities."""
    log_a, log_b = (logits.softmax(dim=-1).clamp(min=FLOOR).log() for logits in (a, b))
    return _mean(functional.kl_div(log_b, log_a, reduction="none", log_target=True).sum(dim=-1), mask)


def _mean(values: Tensor, mask: Tensor) -> Tensor:
    return ((values * mask).sum(dim=-1) / mask.sum(dim=-1)).mean()


class Linear(nn.Linear):
    """Weight and input are quantized in every forward pass."""

    kind: str

    def forward(self, x: Tensor) -> Tensor:
        return functional.linear(fake_quantize(x, "int8"), fake_quantize(self.weight, self.kind), self.bias)


class Embedding(nn.Embedding):
    """The whole table is quantized, then rows are looked up."""

    def forward(self, ids: Tensor) -> Tensor:
        return functional.embedding(ids, fake_quantize(self.weight, "int4"))


def quantize(model: nn.Module) -> nn.Module:
    """Body ternary, embedding and head int4, inputs int8, in place."""
    for name, module in model.named_modules():
        swapped: Any = module
        if type(module) is nn.Linear:
            swapped.__class__, swapped.kind = Linear, "int4" if name.endswith("lm_head") else "ternary"
        elif type(module) is nn.Embedding:
            swapped.__class__ = Embedding
    return model


def feature_loss(student: tuple[Tensor, ...], teacher: tuple[Tensor, ...], mask: Tensor, layers: int) -> Tensor:
    """Squared difference at the layers whose states are least similar to the state below; one host wait per layer."""
    similar = []
    for below, above in pairwise(teacher):
        similar.append(float(functional.cosine_similarity(above, below, dim=-1).mean()))
    chosen = sorted(range(len(similar)), key=similar.__getitem__)[:layers]
    losses = [
        _mean(functional.mse_loss(student[index + 1], teacher[index + 1], reduction="none").mean(dim=-1), mask)
        for index in chosen
    ]
    return torch.stack(losses).mean()
