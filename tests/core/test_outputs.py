"""Masks, means and lazily made logits (METHOD 4.1 and 4.7)."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from edgerazor.core.outputs import Head, ModelOutput, PositionMask, Targets


@st.composite
def label_batches(draw: st.DrawFn) -> Tensor:
    """Labels `[batch, seq]` where any position, row, or all of it may be ignored."""
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**32 - 1)))
    shape = (draw(st.integers(1, 5)), draw(st.integers(1, 7)))
    kept = torch.rand(shape, generator=generator) < draw(st.sampled_from([0.0, 0.2, 0.7, 1.0]))
    return torch.where(kept, torch.randint(0, 50, shape, generator=generator), torch.tensor(-100))


@given(labels=label_batches())
def test_masks_follow_the_labels(labels: Tensor) -> None:
    targets, valid = Targets.from_labels(labels), labels != -100
    assert torch.equal(targets.tokens.mask, valid) and bool(targets.attention.mask.all())
    assert torch.equal(targets.predictions.mask[:, :-1], valid[:, 1:])
    assert not bool(targets.predictions.mask[:, -1].any())
    assert torch.equal(targets.next_labels()[targets.predictions.mask], labels[:, 1:][valid[:, 1:]])
    assert bool((targets.next_labels()[~targets.predictions.mask] == -100).all())


def test_another_label_may_count_as_none_and_padding_is_not_attended_to() -> None:
    labels = torch.tensor([[5, 0, 3], [0, 0, 2]])
    attention = torch.tensor([[1, 1, 1], [0, 1, 1]])
    targets = Targets.from_labels(labels, attention, ignore_index=0)
    assert torch.equal(targets.tokens.mask, labels != 0)
    assert torch.equal(targets.attention.mask, attention.bool())
    assert targets.next_labels().tolist() == [[0, 3, 0], [0, 2, 0]]


@given(labels=label_batches())
def test_shares_are_means_over_live_positions(labels: Tensor) -> None:
    mask = Targets.from_labels(labels).predictions
    live = mask.mask.any(dim=-1)
    assert int(mask.positions) == int(mask.mask.sum()) and int(mask.sequences) == int(live.sum())
    for reduction in ("sequence_mean", "token_mean", "sum"):
        shares = mask.shares(reduction)
        assert shares.shape == labels.shape and not bool(shares[~mask.mask].any())
        total = float(mask.mask.sum()) if reduction == "sum" else float(live.any())
        assert float(shares.sum()) == pytest.approx(total)
    per_sequence = mask.shares("sequence_mean").sum(dim=-1)[live]
    torch.testing.assert_close(per_sequence, torch.full_like(per_sequence, 1 / max(int(live.sum()), 1)))


@given(labels=label_batches(), cut=st.integers(0, 5))
def test_parts_of_a_step_share_its_counts(labels: Tensor, cut: int) -> None:
    whole = Targets.from_labels(labels).predictions
    for reduction in ("sequence_mean", "token_mean", "sum"):
        parts = [
            PositionMask(mask, whole.positions, whole.sequences).shares(reduction)
            for mask in (whole.mask[:cut], whole.mask[cut:])
        ]
        assert torch.equal(torch.cat(parts), whole.shares(reduction))


def test_logits_are_the_head_applied_to_the_final_hidden_state() -> None:
    hidden, weight, bias = torch.randn(2, 3, 8), torch.randn(11, 8), torch.randn(11)
    output = ModelOutput(final_hidden=hidden, head=Head(weight, bias, lambda x: x.round()))
    torch.testing.assert_close(output.logits, hidden.round() @ weight.t() + bias)
    assert output.logits is output.logits


def test_known_logits_are_kept() -> None:
    logits = torch.randn(2, 3, 11)
    output = ModelOutput.from_logits(logits, hidden_states=(logits,))
    assert output.logits is logits and output.hidden_states == (logits,)


def test_without_a_hidden_state_there_are_no_logits() -> None:
    with pytest.raises(AttributeError, match="no final hidden state"):
        _ = ModelOutput().logits
