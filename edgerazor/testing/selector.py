"""The laws of layer selectors (METHOD 4.5)."""

from dataclasses import dataclass
from typing import Any

import torch
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from edgerazor.core.discovery import load_plugins
from edgerazor.core.registry import Registry
from edgerazor.schemas.components import SelectorParams
from edgerazor.testing.laws import expect, expect_equal, hold_for_examples

_HIDDEN = 6


@dataclass(frozen=True)
class StatesExample:
    """Hidden states of a teacher, described: sequences of these lengths, padded to the longest."""

    lengths: tuple[int, ...]
    layers: int
    dtype: str
    seed: int

    def states(self) -> tuple[Tensor, ...]:
        """L+1 tensors `[batch, seq, hidden]`; later layers differ more and more."""
        generator = torch.Generator().manual_seed(self.seed)
        shape = (self.layers + 1, len(self.lengths), max(self.lengths), _HIDDEN)
        steps = torch.randn(shape, generator=generator) * torch.rand((self.layers + 1, 1, 1, 1), generator=generator)
        return tuple(steps.cumsum(dim=0).to(getattr(torch, self.dtype)).unbind())

    def mask(self) -> Tensor:
        """bool `[batch, seq]`: not padding."""
        return torch.arange(max(self.lengths)) < torch.tensor(self.lengths).unsqueeze(-1)


def check_selector(params: SelectorParams, *, layers: int = 6, registry: Registry | None = None) -> None:
    """Hold a layer selector to the laws of its contract, on about twenty drawn sets of hidden states each.

    Args:
        params: its parameters.
        layers: decoder layers of the teacher; as many as the parameters need.
        registry: builds it; None loads the installed plugins.

    Raises:
        BrokenLawError: the first law that it breaks, with what was found and the example that shows it.
        PluginError: it cannot be built.
    """
    registry = registry or load_plugins()
    registry.build(params)
    examples = st.builds(
        StatesExample,
        lengths=st.lists(st.integers(1, 5), min_size=1, max_size=4).map(tuple),
        layers=st.just(layers),
        dtype=st.sampled_from(("float32", "bfloat16")),
        seed=st.integers(0, 10**6),
    )
    hold_for_examples(LAWS, params.name, lambda: registry.build(params), examples)


def there_is_one_weight_for_every_hidden_state(selector: Any, example: StatesExample) -> None:
    weights = selector.weights(example.states(), example.mask())
    expect(isinstance(weights, Tensor), f"weights are a {type(weights).__name__}, not a tensor")
    shape = [example.layers + 1]
    expect(list(weights.shape) == shape, f"weights have shape {list(weights.shape)}, not {shape}")
    expect(weights.dtype == torch.float32, f"weights are {weights.dtype}, not float32")
    expect(not weights.requires_grad, "weights are not detached")


def weights_are_shares_of_one(selector: Any, example: StatesExample) -> None:
    weights = selector.weights(example.states(), example.mask())
    expect(torch.isfinite(weights).all(), f"weights are {weights.tolist()}")
    expect((weights >= 0).all(), f"a weight is negative: {weights.tolist()}")
    total = float(weights.sum())
    expect(abs(total - 1) < 1e-5, f"weights add up to {total}, not 1")


def the_same_states_give_the_same_weights(selector: Any, example: StatesExample) -> None:
    states, mask = example.states(), example.mask()
    first = selector.weights(states, mask)
    for one, expected in zip(states, example.states(), strict=True):
        expect_equal(one, expected, "it changes a hidden state")
    expect_equal(mask, example.mask(), "it changes the mask")
    expect_equal(selector.weights(states, mask), first, "weights of a second call differ from the first")


def padding_does_not_matter(selector: Any, example: StatesExample) -> None:
    states, mask = example.states(), example.mask()
    expected = selector.weights(states, mask)
    longer = [functional.pad(one.where(mask.unsqueeze(-1), -7.0), (0, 0, 0, 4), value=9.0) for one in states]
    found = selector.weights(tuple(longer), functional.pad(mask, (0, 4)))
    expect_equal(found, expected, "other numbers at padded positions change the weights")
    empty = [torch.cat([one, torch.full_like(one, 5.0)]) for one in states]
    found = selector.weights(tuple(empty), torch.cat([mask, torch.zeros_like(mask)]))
    expect_equal(found, expected, "sequences that are all padding change the weights")


def nothing_is_read_back_from_the_device(selector: Any, example: StatesExample) -> None:
    """The meta device has no values, so whatever waits for one fails here, without a GPU."""
    states = tuple(one.to("meta") for one in example.states())
    weights = selector.weights(states, example.mask().to("meta"))
    device = weights.device.type
    expect(device == "meta", f"weights of states on the device 'meta' are on the device '{device}'")


LAWS = (
    there_is_one_weight_for_every_hidden_state,
    weights_are_shares_of_one,
    the_same_states_give_the_same_weights,
    padding_does_not_matter,
    nothing_is_read_back_from_the_device,
)
