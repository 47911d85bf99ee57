"""The batches a loss is tried on: sequences of all lengths, labels on a part of each, every signal a model can give."""

from collections.abc import Set
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any

import torch
from hypothesis import strategies as st
from torch import Tensor

from edgerazor.core.contracts import Signal
from edgerazor.core.outputs import Head, ModelOutput, PositionMask, Targets

VOCABULARY, HIDDEN, HEADS, HEAD_DIM, EXPERTS = 48, 6, 2, 4, 3
IGNORED = -100
Signals = dict[str, Tensor]
# Where positions lie in what a forward pass gives; the head's weight has none.
POSITION_AXIS = {"final_hidden": 1, "hidden_states": 2, "attentions": 3, "keys": 3, "values": 3, "router_logits": 2}


@dataclass(frozen=True)
class Row:
    """One sequence: `length` tokens, then padding; tokens from `first_label` on have a label."""

    length: int
    first_label: int


@dataclass(frozen=True)
class BatchExample:
    """A batch, described.

    Attributes:
        rows: its sequences; the first one has a label to predict.
        padding: columns that no sequence reaches.
        layers: decoder layers of both models.
        seed: of the random numbers.
    """

    rows: tuple[Row, ...]
    padding: int
    layers: int
    seed: int

    @property
    def columns(self) -> int:
        return max(row.length for row in self.rows) + self.padding

    @property
    def attention(self) -> Tensor:
        """bool `[batch, seq]`: not padding."""
        lengths = torch.tensor([row.length for row in self.rows])
        return torch.arange(self.columns) < lengths.unsqueeze(-1)

    @property
    def labels(self) -> Tensor:
        """`[batch, seq]`."""
        generator = torch.Generator().manual_seed(self.seed)
        columns = max(row.length for row in self.rows)
        drawn = torch.randint(0, VOCABULARY, (len(self.rows), columns), generator=generator)
        drawn = torch.nn.functional.pad(drawn, (0, self.padding))
        first = torch.tensor([row.first_label for row in self.rows]).unsqueeze(-1)
        return drawn.where(self.attention & (torch.arange(self.columns) >= first), IGNORED)

    def targets(self) -> Targets:
        """Of the whole batch."""
        return Targets.from_labels(self.labels, self.attention)

    def targets_of(self, rows: slice) -> Targets:
        """Of some sequences, with the counts of the whole batch as one optimizer step."""
        whole, part = self.targets(), Targets.from_labels(self.labels[rows], self.attention[rows])
        masks = {
            name: replace(getattr(whole, name), mask=getattr(part, name).mask)
            for name in ("tokens", "predictions", "attention")
        }
        return Targets(part.labels, **masks)

    def signals(self, who: int) -> Signals:
        """What the forward pass of model number `who` gives, stacked over layers, as leaves that take a gradient.

        Attentions are given before their softmax.
        """
        generator = torch.Generator().manual_seed(2 * self.seed + who)
        batch, seq, layers = len(self.rows), self.columns, self.layers
        shapes = {
            "final_hidden": (batch, seq, HIDDEN),
            "head_weight": (VOCABULARY, HIDDEN),
            "hidden_states": (layers + 1, batch, seq, HIDDEN),
            "attentions": (layers, batch, HEADS, seq, seq),
            "keys": (layers, batch, HEADS, seq, HEAD_DIM),
            "values": (layers, batch, HEADS, seq, HEAD_DIM),
            "router_logits": (layers, batch, seq, EXPERTS),
        }
        return {name: torch.randn(shape, generator=generator).requires_grad_(True) for name, shape in shapes.items()}

    def output(self, signals: Signals, wanted: Set[Signal], rows: slice = slice(None)) -> ModelOutput:
        """The forward pass of some sequences, with the signals that are wanted and nothing else."""
        given: dict[str, Any] = {}
        if Signal.LOGITS in wanted:
            given = {"final_hidden": signals["final_hidden"][rows], "head": Head(signals["head_weight"])}
        for signal in wanted - {Signal.LOGITS}:
            layers = [layer[rows] for layer in signals[signal.value]]
            if signal == Signal.ATTENTIONS:
                allowed = self.attention[rows, None, None, :] & torch.ones(self.columns, self.columns).tril().bool()
                layers = [layer.masked_fill(~allowed, -1e9).softmax(dim=-1) for layer in layers]
            if signal == Signal.ROUTER_LOGITS:
                layers = [layer.flatten(0, 1) for layer in layers]
            given[signal.value] = tuple(layers)
        return ModelOutput(**given)

    def config(self) -> SimpleNamespace:
        """What `check_models` of a loss may ask of a model's configuration."""
        return SimpleNamespace(
            num_hidden_layers=self.layers,
            hidden_size=HIDDEN,
            num_attention_heads=HEADS,
            num_key_value_heads=HEADS,
            head_dim=HEAD_DIM,
            vocab_size=VOCABULARY,
        )


def with_other_padding(example: BatchExample, signals: Signals, *, more: int = 0) -> tuple[BatchExample, Signals]:
    """The same batch with other numbers where there is padding, and `more` columns of padding."""
    changed = replace(example, padding=example.padding + more)
    other, padded = changed.signals(9), {}
    for name, tensor in signals.items():
        if name == "head_weight":
            padded[name] = tensor
            continue
        axis, result = POSITION_AXIS[name], other[name].detach() * 10
        size = [slice(0, length) for length in tensor.shape]
        mask = changed.attention
        mask = mask.reshape((1,) * (axis > 1) + (mask.shape[0],) + (1,) * (axis == 3) + (mask.shape[1],) + (1,))
        inside = torch.zeros_like(result)
        inside[tuple(size)] = tensor.detach()
        padded[name] = inside.where(mask, result).requires_grad_(True)
    return changed, padded


@st.composite
def batch_examples(draw: st.DrawFn, layers: int) -> BatchExample:
    """Up to four sequences, some of them without a label to predict."""
    rows = [Row(draw(st.integers(2, 6)), draw(st.integers(0, 1)))]
    for _ in range(draw(st.integers(0, 3))):
        length = draw(st.integers(1, 6))
        rows.append(Row(length, draw(st.integers(0, length))))
    return BatchExample(tuple(rows), draw(st.integers(0, 2)), layers, draw(st.integers(0, 10**6)))


def nothing_to_learn(targets: Targets) -> Targets:
    """The same batch, all of it masked."""
    mask = torch.zeros_like(targets.tokens.mask)
    empty = PositionMask.of(mask)
    return Targets(torch.full_like(targets.labels, IGNORED), empty, empty, empty)
