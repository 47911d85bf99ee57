"""The laws of layer selectors (METHOD 4.5)."""

from dataclasses import dataclass, replace
from typing import Any

import torch
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from edgerazor.core.contracts import CalibratedSelector
from edgerazor.core.discovery import load_plugins
from edgerazor.core.registry import Registry
from edgerazor.errors import PlanError
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
    for state, expected in zip(states, example.states(), strict=True):
        expect_equal(state, expected, "it changes a hidden state")
    expect_equal(mask, example.mask(), "it changes the mask")
    expect_equal(selector.weights(states, mask), first, "weights of a second call differ from the first")


def padding_does_not_matter(selector: Any, example: StatesExample) -> None:
    states, mask = example.states(), example.mask()
    expected = selector.weights(states, mask)
    longer = [functional.pad(state.where(mask.unsqueeze(-1), -7.0), (0, 0, 0, 4), value=9.0) for state in states]
    found = selector.weights(tuple(longer), functional.pad(mask, (0, 4)))
    expect_equal(found, expected, "other numbers at padded positions change the weights")
    empty = [torch.cat([state, torch.full_like(state, 5.0)]) for state in states]
    found = selector.weights(tuple(empty), torch.cat([mask, torch.zeros_like(mask)]))
    expect_equal(found, expected, "sequences that are all padding change the weights")


def nothing_is_read_back_from_the_device(selector: Any, example: StatesExample) -> None:
    """The meta device has no values, so whatever waits for one fails here, without a GPU."""
    states = tuple(state.to("meta") for state in example.states())
    weights = selector.weights(states, example.mask().to("meta"))
    device = weights.device.type
    expect(device == "meta", f"weights of states on the device 'meta' are on the device '{device}'")


def fixed_layers_are_those_with_a_weight(selector: Any, example: StatesExample) -> None:
    if selector.reads_states:
        return
    layers = selector.fixed_layers(example.layers)
    expect(list(layers) == sorted(set(layers)), f"fixed_layers gives {layers}; ascending and distinct is expected")
    chosen = selector.weights(example.states(), example.mask()).nonzero().flatten().tolist()
    expect(list(layers) == chosen, f"fixed_layers gives {list(layers)}, weights are not zero at {chosen}")


def nothing_below_its_lowest_layer_is_chosen(selector: Any, example: StatesExample) -> None:
    chosen = selector.weights(example.states(), example.mask()).nonzero().flatten().tolist()
    lowest = selector.lowest_layer
    expect(min(chosen) >= lowest, f"lowest_layer is {lowest}, but hidden state {min(chosen)} has a weight")


def a_depth_it_cannot_serve_is_a_plan_error(selector: Any, example: StatesExample) -> None:
    selector.check_layers(example.layers)
    for layers in (1, 2, 3):
        try:
            selector.check_layers(layers)
        except PlanError:
            continue
        except Exception as error:
            raise AssertionError(f"check_layers({layers}) raises {type(error).__name__}: {error}") from error
        few = replace(example, layers=layers)
        weights = selector.weights(few.states(), few.mask())
        expect(len(weights) == layers + 1, f"check_layers({layers}) passes, but weights has {len(weights)} entries")


def calibration_settles_what_is_chosen(selector: Any, example: StatesExample) -> None:
    """A resumed run gives the layers back, so what was settled must choose the same again."""
    if not isinstance(selector, CalibratedSelector) or not selector.calibration_batches:
        return
    selector.observe(example.states(), example.mask())
    layers = selector.settle()
    expect(list(layers) == list(selector.settled or ()), f"settle gives {layers}, settled is {selector.settled}")
    expect(not selector.reads_states, "reads_states is True after settle")
    expect(selector.calibration_batches == 0, f"it wants {selector.calibration_batches} batches after settle")
    fixed_layers_are_those_with_a_weight(selector, example)
    again = selector.settle(list(layers))
    expect(list(again) == list(layers), f"settle({list(layers)}) gives {list(again)}")


LAWS = (
    there_is_one_weight_for_every_hidden_state,
    weights_are_shares_of_one,
    the_same_states_give_the_same_weights,
    padding_does_not_matter,
    nothing_is_read_back_from_the_device,
    fixed_layers_are_those_with_a_weight,
    nothing_below_its_lowest_layer_is_chosen,
    a_depth_it_cannot_serve_is_a_plan_error,
    calibration_settles_what_is_chosen,
)
