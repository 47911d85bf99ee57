"""How much the output suffers from an error in each weight: the diagonal of the Fisher information, from gradients.

KL(model, model with weights moved by d) is 1/2 dᵀ F d to second order, where F is the mean of g gᵀ over labels drawn
from the model's own distribution and g the gradient of their log likelihood. KL's own gradient says nothing: at the
16-bit weights it is zero. One drawn label per position makes every backward pass an unbiased sample, and labels of
different positions are independent, so the square of a whole batch's gradient stands for the sum over its positions.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from edgerazor.core.contracts import ArchitectureAdapter, Quantizer
from edgerazor.core.layers.matrices import Matrices
from edgerazor.core.outputs import Head, Targets
from edgerazor.errors import DataError
from edgerazor.kernels.divergence import RowWeights
from edgerazor.kernels.fused_linear import fused_linear_distillation
from edgerazor.kernels.projection import Projection, chunk_rows, chunks


@dataclass(frozen=True)
class Sensitivity:
    """Diagonal of the Fisher information.

    Attributes:
        fisher: float32, in the shape of each weight; per predicted token.
        tokens: how many predicted tokens it was measured on.
    """

    fisher: Mapping[str, Tensor]
    tokens: int


def measure_sensitivity(
    model: nn.Module,
    weights: Mapping[str, nn.Parameter],
    batches: Iterable[Mapping[str, Any]],
    *,
    adapter: ArchitectureAdapter,
    seed: int = 0,
) -> Sensitivity:
    """Accumulate squared gradients, one backward pass a batch.

    Args:
        model: at its 16-bit weights, float32, evaluation mode; its parameters' `requires_grad` is changed.
        weights: parameters of the model, by names of your choice.
        batches: as the data collator makes them.
        adapter: of the model's family.
        seed: of the drawn labels.

    Raises:
        DataError: no batch holds a token to predict.
    """
    fisher = {name: torch.zeros_like(weight, dtype=torch.float32) for name, weight in weights.items()}
    model.requires_grad_(False)
    hooks = [_square_gradients(weight, fisher[name]) for name, weight in weights.items()]
    device = next(iter(weights.values())).device
    generator, tokens = torch.Generator(device).manual_seed(seed), 0
    try:
        for batch in batches:
            moved = {key: value.to(device) for key, value in batch.items() if isinstance(value, Tensor)}
            tokens += _backward(model, moved, adapter, generator)
    finally:
        for hook in hooks:
            hook.remove()
        model.requires_grad_(False)
    if not tokens:
        raise DataError("the calibration batches hold no token to predict")
    return Sensitivity({name: total.div_(tokens) for name, total in fisher.items()}, tokens)


@torch.no_grad()
def row_losses(fisher: Tensor, weight: Tensor, quantizer: Quantizer, matrices: Matrices | None = None) -> Tensor:
    """Predicted KL that each row's rounding adds: 1/2 sum of F times the squared error.

    Args:
        fisher: of the weight, in its shape.
        weight: `[..., columns]`.
        quantizer: what it would be rounded by.
        matrices: how it reads as matrices; None for one matrix.

    Returns:
        float64 `[rows]`, nats per token; leading axes count as rows.
    """
    matrices = matrices or Matrices.along_last_axis(weight.shape)
    error = matrices.fake_quantize(quantizer, weight.float()) - weight.float()
    products = (error.square_() * fisher).reshape(-1, weight.shape[-1])
    return products.sum(dim=-1, dtype=torch.float64).cpu() / 2


def _square_gradients(weight: nn.Parameter, total: Tensor) -> Any:
    """Add the squared gradient as soon as there is one, and let it go, so that one gradient at a time is held."""

    def accumulate(parameter: Tensor) -> None:
        assert parameter.grad is not None
        total.addcmul_(parameter.grad.float(), parameter.grad.float())
        parameter.grad = None

    weight.requires_grad_(True)
    return weight.register_post_accumulate_grad_hook(accumulate)


def _backward(
    model: nn.Module, batch: Mapping[str, Tensor], adapter: ArchitectureAdapter, generator: torch.Generator
) -> int:
    """One backward pass of the log likelihood of drawn labels, summed; returns the number of predicted tokens."""
    targets = Targets.from_labels(batch["labels"], batch.get("token_mask"))
    rows = targets.predictions.mask.flatten().nonzero().squeeze(-1)
    if not len(rows):
        return 0

    def inside_head(hidden: Tensor, head: Head) -> Tensor:
        projection = head.projection(hidden, rows, autocast=False)
        ones = torch.ones(len(rows), device=hidden.device)
        factors = RowWeights(torch.zeros_like(ones), torch.zeros_like(ones), ones)
        value, _ = fused_linear_distillation(projection, None, _draw_labels(projection, generator), factors)
        return value.reshape(1, 1, 1)

    output = adapter.forward(model, batch, frozenset(), inside_head=inside_head)
    assert output.inside_head is not None
    output.inside_head.sum().backward()  # type: ignore[no-untyped-call]
    return len(rows)


@torch.no_grad()
def _draw_labels(projection: Projection, generator: torch.Generator) -> Tensor:
    """int64 `[rows]`: one token per row, drawn from the model's own distribution, chunk by chunk."""
    widened, count = projection.widened(), len(projection.hidden)
    chunk = chunk_rows(count, len(projection.weight), projection.weight.device)
    drawn = [
        torch.multinomial(widened.logits(rows).softmax(dim=-1), 1, generator=generator) for rows in chunks(count, chunk)
    ]
    return torch.cat(drawn).squeeze(-1)
