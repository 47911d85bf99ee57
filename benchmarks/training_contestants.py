"""One training step of every contestant: loss, backward pass, optimizer; same student, teacher, batch and optimizer.

The recipe is 1.58 bit: body ternary, embedding and head int4, inputs int8, groups of 256; EAKLD (uniform_support 16)
with weight 2, squared difference of features at 3 layers with 0.1, cross entropy with 0.1. Keys and values stay as they
are, since the original release bypasses their quantization in training with checkpoints.
"""

import sys
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import original_config
import separate_passes
import torch
from original_config import NAME as ORIGINAL
from peers import interpreter
from torch import Tensor
from torch.nn import functional
from training_models import Pair

FULL, FORWARD_KL, OURS = "full precision", "forward KL, plain", "ours"
COMPILED, AS_TRAINED = "ours, compiled", "ours, allocator of `edgerazor train`"
TRAINED_SCALES = "ours, trained scales"
SEPARATE = "separate passes (our reconstruction)"
INTERPRETERS = {
    FULL: sys.executable,
    FORWARD_KL: sys.executable,
    ORIGINAL: interpreter("original"),
    SEPARATE: sys.executable,
    OURS: sys.executable,
    COMPILED: sys.executable,
    AS_TRAINED: sys.executable,
}
VARIABLES = {COMPILED: {"EDGERAZOR_KERNELS": "compiled"}, AS_TRAINED: {"THP_MEM_ALLOC_ENABLE": "1"}}
TASK, LOGITS, FEATURES, LAYERS, SUPPORT = 0.1, 2.0, 0.1, 3, 16
SCALE_RATE = 0.01
QUANTIZATION = {
    "weights": [
        {"match": ["*.embed_tokens", "lm_head"], "quantizer": {"name": "int", "bits": 4, "group_size": 256}},
        {"match": "*", "quantizer": {"name": "ternary", "group_size": 256}},
    ],
    "activations": {"name": "int", "bits": 8, "group_size": 256},
}
LOSSES = [
    {"name": "eakld", "weight": LOGITS, "uniform_support": SUPPORT},
    {"name": "feature_mse", "weight": FEATURES, "layers": {"name": "lafd", "top_k": LAYERS}},
]
Loss = Callable[[int], Tensor]


class Step:
    """Training of one contestant.

    Args:
        micro_batches: the batch is run that many times before the optimizer steps.
        checkpointing: of gradients, in every decoder layer.
        fused: one call of the optimizer for all parameters, as `edgerazor train` makes it.

    Attributes:
        scales: layers and their scales that are trained, by name.
    """

    def __init__(
        self,
        name: str,
        pair: Pair,
        *,
        autocast: bool,
        micro_batches: int = 1,
        checkpointing: bool = False,
        fused: bool = False,
    ) -> None:
        self.name, self.autocast, self.micro_batches = name, autocast, micro_batches
        self.student, self.teacher, self.batch = pair
        self.device = self.batch["input_ids"].device
        self.stack = ExitStack()
        self.scales: dict[str, Any] = {}
        self.loss_of: Loss = _BUILDERS[name](self)
        if checkpointing:
            student: Any = self.student
            student.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        options: dict[str, Any] = {"lr": 2e-5, "betas": (0.9, 0.95), "weight_decay": 0.0}
        self.optimizer = torch.optim.AdamW(self.student.parameters(), fused=fused or None, **options)
        if self.scales:
            from edgerazor.training.learned_scales import add_scales

            add_scales(self.scales, self.optimizer, SCALE_RATE)
        self.mask = functional.pad(self.batch["labels"][:, 1:] >= 0, (0, 1))

    def loss(self) -> Tensor:
        """The loss of one micro-batch as its share of the step, under autocast where the contest has it."""
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.autocast):
            return self.loss_of(self.micro_batches)

    def run(self) -> Tensor:
        """Take one optimizer step over all micro-batches; returns the loss before it."""
        total = torch.zeros((), device=self.device)
        for _ in range(self.micro_batches):
            loss = self.loss()
            loss.backward()
            total += loss.detach()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return total


def _full(step: Step) -> Loss:
    return lambda shares: _cross_entropy(step.student(**_inputs(step), use_cache=False).logits, step) / shares


def _forward_kl(step: Step) -> Loss:
    def loss(shares: int) -> Tensor:
        with torch.no_grad():
            theirs = step.teacher(**_inputs(step), use_cache=False).logits.float().log_softmax(dim=-1)
        mine = step.student(**_inputs(step), use_cache=False).logits.float().log_softmax(dim=-1)
        rows = functional.kl_div(mine, theirs, reduction="none", log_target=True).sum(dim=-1)
        return ((rows * step.mask).sum(dim=-1) / step.mask.sum(dim=-1)).mean() / shares

    return loss


def _separate(step: Step) -> Loss:
    separate_passes.quantize(step.student)
    step.student.tie_weights()

    def loss(shares: int) -> Tensor:
        options = {**_inputs(step), "use_cache": False, "output_hidden_states": True}
        with torch.no_grad():
            theirs = step.teacher(**options)
        mine = step.student(**options)
        divergence = separate_passes.eakld(mine.logits, theirs.logits, step.mask, SUPPORT)
        features = separate_passes.feature_loss(
            mine.hidden_states, theirs.hidden_states, step.batch["labels"] >= 0, LAYERS
        )
        return (LOGITS * divergence + FEATURES * features + TASK * _cross_entropy(mine.logits, step)) / shares

    return loss


def _original(step: Step) -> Loss:
    from edgerazor import EdgeRazor

    losses = original_config.distillation(TASK, LOGITS, FEATURES, layers=LAYERS, uniform_support=SUPPORT)
    original = EdgeRazor(qat_config=original_config.quantization(1.58, 256), kd_config=losses)
    step.student = original.quantize(step.student).train()

    def loss(shares: int) -> Tensor:
        options = {**_inputs(step), "use_cache": False, "output_hidden_states": True}
        with torch.no_grad():
            theirs = step.teacher(**options)
        mine = step.student(**options, labels=step.batch["labels"])
        return original.compute_loss(mine, theirs, step.batch["labels"])[0] / shares

    return loss


def _ours(step: Step) -> Loss:
    from edgerazor.core.apply import apply_plan
    from edgerazor.core.discovery import load_plugins
    from edgerazor.core.outputs import PositionMask, Targets, count_positions, position_masks
    from edgerazor.core.plan import build_plan
    from edgerazor.distill import Distiller
    from edgerazor.schemas.quantization import QuantizationSection

    registry = load_plugins(external=False)
    adapter = registry.adapter_for("qwen3")
    section = QuantizationSection.model_validate(QUANTIZATION, context={"registry": registry})
    plan = build_plan(step.student, section, adapter=adapter, registry=registry)
    apply_plan(step.student, plan, registry=registry)
    if step.name == TRAINED_SCALES:
        from edgerazor.checkpoint.learned_scales import learn_scales

        step.scales = learn_scales(step.student, plan)
    try:
        from edgerazor.core.layers.weight_cache import cached_weights
    except ImportError:
        pass
    else:
        step.stack.enter_context(cached_weights(step.student))
    losses = [registry.build(registry.params("loss", **_that_fits(loss, step.student))) for loss in LOSSES]
    distiller = Distiller(losses, task_weight=TASK, adapter=adapter)
    masks = position_masks(step.batch["labels"], None)
    rows = masks[1].flatten().nonzero().squeeze(-1)

    def loss(shares: int) -> Tensor:
        counted = [PositionMask(mask, *(shares * count for count in count_positions(mask))) for mask in masks]
        targets = Targets(step.batch["labels"], *counted)
        return distiller(step.student, step.teacher, {**step.batch, "prediction_rows": rows}, targets).value

    return loss


def _that_fits(loss: dict[str, Any], student: Any) -> dict[str, Any]:
    """The loss, over no more layers than there are."""
    if "layers" not in loss:
        return loss
    layers = min(loss["layers"]["top_k"], student.config.num_hidden_layers)
    return {**loss, "layers": {**loss["layers"], "top_k": layers}}


def _as_trained(step: Step) -> Loss:
    from edgerazor.cli.process import keep_large_blocks

    keep_large_blocks()
    return _ours(step)


_BUILDERS: dict[str, Callable[[Step], Loss]] = {
    FULL: _full,
    FORWARD_KL: _forward_kl,
    ORIGINAL: _original,
    SEPARATE: _separate,
    OURS: _ours,
    TRAINED_SCALES: _ours,
    COMPILED: _ours,
    AS_TRAINED: _as_trained,
}


def _inputs(step: Step) -> dict[str, Tensor]:
    return {"input_ids": step.batch["input_ids"]}


def _cross_entropy(logits: Tensor, step: Step) -> Tensor:
    flat = logits[:, :-1].float().flatten(0, 1)
    return functional.cross_entropy(flat, step.batch["labels"][:, 1:].flatten())
