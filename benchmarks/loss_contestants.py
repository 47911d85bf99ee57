"""EAKLD of every contestant, from logits or from hidden states: each gives the value and the gradients."""

import sys
from collections.abc import Callable
from typing import Any

import torch
from loss_inputs import SUPPORT, Inputs, defined
from original_config import NAME as ORIGINAL
from peers import interpreter
from torch import Tensor
from torch.nn import functional

OURS, COMPILED = "ours", "ours, compiled"
EXACT, PRODUCTS = "plain autograd, float32", "four products alone"
SEPARATE = "separate passes (our reconstruction)"
LIGER = "Liger-Kernel 0.8.5 (forward KL alone)"
INTERPRETERS = {
    OURS: sys.executable,
    COMPILED: sys.executable,
    ORIGINAL: interpreter("original"),
    SEPARATE: sys.executable,
    EXACT: sys.executable,
    LIGER: interpreter("liger-kernel"),
    PRODUCTS: sys.executable,
}
VARIABLES = {COMPILED: {"EDGERAZOR_KERNELS": "compiled"}}
FLOORED = (ORIGINAL, SEPARATE)
TASK = 0.1
Run = Callable[[], tuple[Tensor, tuple[Tensor, ...]]]
Loss = Callable[[Tensor, Tensor], Tensor]


def build(name: str, what: str, inputs: Inputs) -> Run:
    """The job of one contestant.

    Args:
        what: `logits`, or `fused` from hidden states.

    Raises:
        NotImplementedError: this contestant has no such job.
    """
    if name == PRODUCTS:
        if what == "logits":
            raise NotImplementedError("no product is needed")
        return _products(inputs)
    if name in (OURS, COMPILED):
        return _ours_from_logits(inputs) if what == "logits" else fused(inputs)
    if name == LIGER:
        return _liger(inputs, what)
    loss = {ORIGINAL: _original, SEPARATE: _separate, EXACT: _exact}[name](inputs)
    return _from_logits(inputs, loss) if what == "logits" else _with_head(inputs, loss)


def _from_logits(inputs: Inputs, loss: Loss) -> Run:
    z, u = (logits.detach() for logits in inputs.logits())
    z.requires_grad_()

    def run() -> tuple[Tensor, tuple[Tensor, ...]]:
        value = loss(z, u)
        return value, torch.autograd.grad(value, (z,))

    return run


def _with_head(inputs: Inputs, loss: Loss) -> Run:
    """Whole logits of both, the loss on them, and the cross entropy of the same logits."""
    leaves = [leaf.detach().clone().requires_grad_() for leaf in (inputs.hidden, inputs.weight)]

    def run() -> tuple[Tensor, tuple[Tensor, ...]]:
        with torch.no_grad():
            u = functional.linear(inputs.teacher_hidden, inputs.teacher_weight)
        z = functional.linear(*leaves)
        value = loss(z, u) + TASK * functional.cross_entropy(z.float(), inputs.labels)
        return value, torch.autograd.grad(value, leaves)

    return run


def whole_forward_kl(inputs: Inputs) -> Run:
    """The usual way: whole logits, log_softmax, kl_div."""

    def loss(z: Tensor, u: Tensor) -> Tensor:
        rows = (z.float().log_softmax(dim=-1), u.float().log_softmax(dim=-1))
        return functional.kl_div(*rows, reduction="batchmean", log_target=True)

    return _with_head(inputs, loss)


def _exact(inputs: Inputs) -> Loss:
    return lambda z, u: defined(z.float(), u.float(), inputs, task=0.0, floor=None)


def _separate(inputs: Inputs) -> Loss:
    from separate_passes import eakld

    shape = inputs.mask.shape
    return lambda z, u: eakld(z.view(*shape, -1), u.view(*shape, -1), inputs.mask, SUPPORT)


def _original(inputs: Inputs) -> Loss:
    from edgerazor.kd import LossConfig, compute_kld_confidence

    config = LossConfig(temperature=1.0, use_entropy=True, confidence_k=SUPPORT, reduction="batch_mean")
    shape = inputs.mask.shape
    labels = inputs.labels.view(shape)
    return lambda z, u: compute_kld_confidence(z.view(*shape, -1), u.view(*shape, -1), labels, config)


def _registered_loss() -> Any:
    from edgerazor.core.discovery import load_plugins

    registry = load_plugins(external=False)
    return registry.build(registry.params("loss", "eakld", uniform_support=SUPPORT))


def _targets(inputs: Inputs) -> Any:
    """Labels moved by one, since ours predict the next; every position counts."""
    from edgerazor.core.outputs import PositionMask, Targets

    labels = functional.pad(inputs.labels.view(inputs.mask.shape), (1, 0))[:, :-1]
    mask = PositionMask.of(inputs.mask)
    return Targets(labels, mask, mask, mask)


def _ours_from_logits(inputs: Inputs) -> Run:
    from edgerazor.core.outputs import ModelOutput

    loss, targets = _registered_loss(), _targets(inputs)
    shape = inputs.mask.shape

    def eakld(z: Tensor, u: Tensor) -> Tensor:
        outputs = (ModelOutput.from_logits(logits.view(*shape, -1)) for logits in (z, u))
        value: Tensor = loss(*outputs, targets).value
        return value

    return _from_logits(inputs, eakld)


def fused(inputs: Inputs, **options: Any) -> Run:
    """Ours from hidden states; options are those of `TeacherLogits`."""
    from edgerazor.core.outputs import TeacherRows
    from edgerazor.kernels.divergence import RowWeights
    from edgerazor.kernels.fused_linear import TeacherLogits, fused_linear_distillation, teacher_statistics
    from edgerazor.kernels.projection import Projection, chunk_rows

    loss, targets = _registered_loss(), _targets(inputs)
    leaves = [leaf.detach().clone().requires_grad_() for leaf in (inputs.hidden, inputs.weight)]
    chunk = chunk_rows(len(inputs.labels), len(inputs.weight), inputs.weight.device)
    task = torch.full(inputs.labels.shape, TASK / len(inputs.labels), device=inputs.labels.device)

    def run() -> tuple[Tensor, tuple[Tensor, ...]]:
        teacher = TeacherLogits(Projection(inputs.teacher_hidden, inputs.teacher_weight), chunk, **options)
        rows = TeacherRows(*teacher_statistics(teacher, inputs.labels))
        weights = RowWeights(*loss.divergence_weights(rows, targets), task)
        value, _ = fused_linear_distillation(Projection(*leaves), teacher, inputs.labels, weights)
        return value, torch.autograd.grad(value, leaves)

    return run


def _liger(inputs: Inputs, what: str) -> Run:
    """It has no gamma, so it does less: forward KL, from log probabilities or fused with the head."""
    from liger_kernel.transformers import LigerFusedLinearJSD, LigerKLDIVLoss

    if what == "logits":
        divergence = LigerKLDIVLoss(reduction="batchmean", log_target=True)
        return _from_logits(inputs, lambda z, u: divergence(z.log_softmax(dim=-1), u.log_softmax(dim=-1)))
    fused = LigerFusedLinearJSD(jsd_beta=0.0)
    leaves = [leaf.detach().clone().requires_grad_() for leaf in (inputs.hidden, inputs.weight)]

    def run() -> tuple[Tensor, tuple[Tensor, ...]]:
        value = fused(*leaves, inputs.teacher_hidden, inputs.teacher_weight)
        return value, torch.autograd.grad(value, leaves)

    return run


def _products(inputs: Inputs) -> Run:
    """What no way from hidden states to gradients can do without: both logits, and both gradients; into buffers."""
    z, u = (torch.empty_like(logits) for logits in inputs.logits())
    hidden, weight = torch.empty_like(inputs.hidden), torch.empty_like(inputs.weight)

    def run() -> tuple[Tensor, tuple[Tensor, ...]]:
        torch.mm(inputs.teacher_hidden, inputs.teacher_weight.t(), out=u)
        torch.mm(inputs.hidden, inputs.weight.t(), out=z)
        torch.mm(u, inputs.weight, out=hidden)
        torch.mm(u.t(), inputs.hidden, out=weight)
        return z, (hidden, weight)

    return run
