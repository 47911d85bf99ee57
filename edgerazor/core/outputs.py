"""What a forward pass gives to losses, and what losses give back (ARCHITECTURE 4, METHOD 4.1)."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from edgerazor.kernels.cpu_products import CodedOperands
from edgerazor.kernels.projection import Projection
from edgerazor.schemas.components import Reduction


@dataclass(frozen=True)
class Head:
    """The output projection as the forward pass uses it.

    Attributes:
        weight: `[V, H]`, already fake-quantized.
        bias: `[V]` or None.
        quantize_input: applied to the hidden state before the product; None where activations stay as they are.
        codes: of some rows of the hidden state and of the weight, set where the product of codes is faster.
        divisor: what the model divides the product by to get its logits; a head that has one has no bias.
    """

    weight: Tensor
    bias: Tensor | None = None
    quantize_input: Callable[[Tensor], Tensor] | None = None
    codes: Callable[[Tensor], CodedOperands] | None = None
    divisor: float = 1.0

    def input(self, hidden: Tensor) -> Tensor:
        """The hidden state as it enters the product."""
        return hidden if self.quantize_input is None else self.quantize_input(hidden)

    def logits(self, hidden: Tensor) -> Tensor:
        """`[..., V]` of `hidden [..., H]`."""
        product = functional.linear(self.input(hidden), self.weight, self.bias)
        return product if self.divisor == 1 else product / self.divisor

    def projection(self, hidden: Tensor, rows: Tensor | slice, *, autocast: bool) -> Projection:
        """Some rows of a flattened `hidden [..., H]` and the weights, as the fused kernels take them.

        Args:
            rows: int64 indices of flattened positions, or a slice of them.
            autocast: round both to autocast's dtype where it is on, as a linear layer would; a teacher's projection
                stays in the dtype of its own weight.
        """
        chosen, dtype = hidden.flatten(0, -2)[rows], self.weight.dtype
        if autocast and torch.is_autocast_enabled(hidden.device.type):
            dtype = torch.get_autocast_dtype(hidden.device.type)
        projection = Projection(
            self.input(chosen).to(dtype),
            self.weight.to(dtype),
            None if self.bias is None else self.bias.to(dtype),
            None if self.codes is None else self.codes(chosen),
        )
        return projection if self.divisor == 1 else projection.divided(self.divisor)


@dataclass
class ModelOutput:
    """One forward pass; only the signals that were asked for are set.

    Attributes:
        final_hidden: `[batch, seq, hidden]` after the final norm.
        head: what turns it into logits.
        hidden_states: L+1 tensors `[batch, seq, hidden]`: the embedding output, then every decoder layer, the last one
            after the final norm.
        attentions: L tensors `[batch, heads, seq, seq]`.
        keys, values: L tensors `[batch, kv_heads, seq, head_dim]`.
        router_logits: one tensor `[tokens, experts]` per layer.
        balancing_loss: of a mixture of experts whose own configuration adds one, its coefficient included; a scalar.
        inside_head: what the function that ran inside the head's forward returned, if one did.
    """

    final_hidden: Tensor | None = None
    head: Head | None = None
    hidden_states: tuple[Tensor, ...] | None = None
    attentions: tuple[Tensor, ...] | None = None
    keys: tuple[Tensor, ...] | None = None
    values: tuple[Tensor, ...] | None = None
    router_logits: tuple[Tensor, ...] | None = None
    balancing_loss: Tensor | None = None
    inside_head: Tensor | None = None

    @classmethod
    def from_logits(cls, logits: Tensor, **signals: Any) -> "ModelOutput":
        """An output whose logits are known already, for models without a linear head and for tests."""
        output = cls(**signals)
        output.__dict__["logits"] = logits
        return output

    @cached_property
    def logits(self) -> Tensor:
        """`[batch, seq, vocab]`, computed on first use; the built-in losses never ask for it."""
        if self.final_hidden is None or self.head is None:
            raise AttributeError("this forward pass kept no final hidden state, so it has no logits")
        return self.head.logits(self.final_hidden)


@dataclass(frozen=True)
class PositionMask:
    """Positions that count, and how many there are in the whole optimizer step, on all ranks.

    Attributes:
        mask: bool `[batch, seq]`, or float shares of positions that add up to one.
        positions: true entries of the step, a scalar tensor.
        sequences: live rows (with a true entry) of the step, a scalar tensor.
    """

    mask: Tensor
    positions: Tensor
    sequences: Tensor

    @classmethod
    def of(cls, mask: Tensor) -> "PositionMask":
        """Counts of this batch alone."""
        return cls(mask, *count_positions(mask))

    def shares(self, reduction: Reduction) -> Tensor:
        """float32 `[batch, seq]`: the factor of each position, so that a loss is `sum(shares * value)`."""
        mask = self.mask.to(torch.float32)
        if reduction == "sum":
            return mask
        if reduction == "token_mean":
            return mask / self.positions.clamp(min=1).to(torch.float32)
        per_row = mask.sum(dim=-1, keepdim=True).clamp_(min=1)
        return mask / (per_row * self.sequences.clamp(min=1).to(torch.float32))


def count_positions(mask: Tensor) -> tuple[Tensor, Tensor]:
    """True entries and live rows of a mask, as scalar tensors; of shares, what they add up to."""
    return mask.sum() if mask.dtype == torch.bool else mask.sum().round().long(), mask.any(dim=-1).sum()


@dataclass(frozen=True)
class Targets:
    """Labels and the three masks of METHOD 4.1.

    Attributes:
        labels: `[batch, seq]`, `ignore_index` where nothing is to be learned.
        tokens: positions whose own label is valid; for hidden states.
        predictions: positions whose NEXT label is valid, never the last; for logits.
        attention: positions that are not padding; for selectors and relations.
        ignore_index: the label that counts as none.
        task: predictions that the task's cross entropy counts; None: all. Labels that the student wrote itself are
            for distillation alone.
        predicted: what each prediction is to give, where that is not the next label: `[batch, labels]`.
    """

    labels: Tensor
    tokens: PositionMask
    predictions: PositionMask
    attention: PositionMask
    ignore_index: int = -100
    task: PositionMask | None = None
    predicted: Tensor | None = None

    @classmethod
    def of_batch(cls, batch: Mapping[str, Any]) -> "Targets":
        """Targets of a collated batch; counts are those of this batch."""
        tokens, predictions, attention, task = (PositionMask.of(mask) for mask in batch_masks(batch))
        return cls(batch["labels"], tokens, predictions, attention, task=task, predicted=predicted_labels(batch))

    @classmethod
    def from_labels(
        cls, labels: Tensor, attention_mask: Tensor | None = None, *, ignore_index: int = -100
    ) -> "Targets":
        """Masks from labels `[batch, seq]` and the batch's attention mask; counts are those of this batch."""
        masks = position_masks(labels, attention_mask, ignore_index=ignore_index)
        tokens, predictions, attention = (PositionMask.of(mask) for mask in masks)
        return cls(labels, tokens, predictions, attention, ignore_index)

    def next_labels(self) -> Tensor:
        """`[batch, seq]`: the label each position predicts; `ignore_index` where there is none."""
        if self.predicted is not None:
            return self.predicted
        return functional.pad(self.labels[:, 1:], (0, 1), value=self.ignore_index)


def position_masks(
    labels: Tensor, attention_mask: Tensor | None, *, ignore_index: int = -100
) -> tuple[Tensor, Tensor, Tensor]:
    """`tokens`, `predictions` and `attention`, each bool `[batch, seq]`."""
    tokens = labels != ignore_index
    predictions = functional.pad(tokens[:, 1:], (0, 1), value=False)
    attention = torch.ones_like(tokens) if attention_mask is None else attention_mask.bool()
    return tokens, predictions, attention


def batch_masks(batch: Mapping[str, Any]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """`tokens`, `predictions`, `attention`, and the predictions that the task counts, of a collated batch.

    Rows of tokens predict the next label at every position. A batch with `label_shares [batch, labels]` holds one
    prediction a row: it is made once, however many labels it is compared with, and the shares say how much each counts.
    """
    attention: Tensor | None = batch.get("token_mask", batch.get("attention_mask"))
    shares: Tensor | None = batch.get("label_shares")
    if shares is None:
        tokens, predictions, attention = position_masks(batch["labels"], attention)
        return tokens, predictions, attention, predictions
    assert attention is not None
    predictions = torch.zeros_like(shares, dtype=torch.bool)
    predictions[:, 0] = attention.any(dim=-1)
    return attention, predictions, attention, shares


def predicted_labels(batch: Mapping[str, Any]) -> Tensor | None:
    """The labels of a batch of one prediction a row; None where the next label of a row is predicted."""
    return batch["labels"] if "label_shares" in batch else None


@dataclass(frozen=True)
class TeacherRows:
    """Per position of a flattened batch `[N]`: entropy (nats, temperature 1) and log probability of the next label."""

    entropy: Tensor
    label_log_probability: Tensor


@dataclass(frozen=True)
class LossOutput:
    """A loss and detached figures for the log, all scalar tensors on the device.

    Figures of several ranks are added by name, so a loss gives the same names for every batch: 0 where there is
    nothing to tell.

    Attributes:
        value: the weighted loss of this forward pass, its share of the optimizer step.
        metrics: means over this forward pass; the log averages them over micro-batches and ranks.
        shares: parts of the optimizer step like `value`, made with `PositionMask.shares`; the log adds them up.
    """

    value: Tensor
    metrics: Mapping[str, Tensor] = field(default_factory=dict)
    shares: Mapping[str, Tensor] = field(default_factory=dict)
