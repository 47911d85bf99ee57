"""What a forward pass computed, seen by hooks on the modules of a Qwen3, whoever changed or wrapped its layers."""

from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn import functional


class ForwardPass:
    """Records the forward pass that runs inside a `with` block.

    Attributes:
        states: `[B, S, H]` each: of the embedding, of every layer, the last one after the final norm.
        hidden: `[B, S, H]`, what the output head took.
        logits: `[B, S, V]`, what it gave; None where a fused loss took its product over.
    """

    def __init__(self, model: nn.Module):
        self.model: Any = model
        self.states: list[Tensor] = []
        self.hidden: Tensor | None = None
        self.logits: Tensor | None = None
        self._hooks: list[Any] = []

    def __enter__(self) -> Self:
        body = self.model.model
        recorded = (body.embed_tokens, *body.layers[:-1], body.norm)
        self._hooks = [module.register_forward_hook(self._keep_state) for module in recorded]
        self._hooks.append(self.model.lm_head.register_forward_hook(self._keep_head))
        return self

    def __exit__(self, *error: object) -> None:
        for hook in self._hooks:
            hook.remove()

    def _keep_state(self, module: nn.Module, inputs: Any, output: Any) -> None:
        # Some versions of transformers return a tuple from a layer.
        self.states.append((output[0] if isinstance(output, tuple) else output).detach())

    def _keep_head(self, module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        self.hidden = inputs[0].detach()
        if output.shape == (*self.hidden.shape[:-1], self.model.config.vocab_size):
            self.logits = output.detach()


class ExactLogits:
    """Rows of logits `[B * S, V]` in float64, a slice at a time: those that the loss saw, before any rounding of sums.

    Where a fused loss made them, they are the exact product of the operands that it multiplied, codes or values.
    """

    def __init__(self, forward: ForwardPass, *, autocast: bool):
        assert forward.hidden is not None
        self._logits = None if forward.logits is None else forward.logits.flatten(0, 1)
        if self._logits is None:
            self._hidden, self._weight = _operands(forward.model.lm_head, forward.hidden, autocast)

    def __len__(self) -> int:
        return len(self._hidden if self._logits is None else self._logits)

    def __getitem__(self, rows: slice) -> Tensor:
        if self._logits is not None:
            return self._logits[rows].double()
        return functional.linear(self._hidden[rows], self._weight)


def _operands(head: Any, hidden: Tensor, autocast: bool) -> tuple[Tensor, Tensor]:
    """What a head of ours multiplies, as float64 `[B * S, H]` and `[V, H]`."""
    with torch.enable_grad():  # codes are multiplied in training alone
        projection = head.projection().projection(hidden, slice(None), autocast=autocast)
    if projection.codes is None:
        return projection.hidden.detach().double(), projection.weight.detach().double()
    hidden, weight = (_values(*matrix) for matrix in projection.codes)
    return hidden, weight


def _values(codes: Tensor, scale: Tensor) -> Tensor:
    """Exact values of codes `[N, C]` with scales `[N, G]` of C / G columns each."""
    return codes.double() * scale.double().repeat_interleave(codes.shape[1] // scale.shape[1], dim=1)
