"""Laws of every registered selector (METHOD 4.5), and what `lafd` and `fixed` choose."""

from itertools import pairwise
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor
from torch.nn import functional

from edgerazor.core.discovery import load_plugins
from edgerazor.errors import PlanError

REGISTRY = load_plugins(external=False)
LAYERS = 6
PARAMETERS: dict[str, list[dict[str, Any]]] = {
    "lafd": [
        *({"top_k": top_k} for top_k in (1, 3, LAYERS)),
        *({"top_k": 2, "metric": metric} for metric in ("norm", "variance")),
    ],
    "fixed": [{"layers": ["low", "mid", "high"]}, {"layers": [0, -1]}],
}
every_selector = pytest.mark.parametrize(
    ("name", "values"),
    [(name, values) for name in REGISTRY.names("selector") for values in PARAMETERS.get(name, [{}])],
)


def build(name: str, **values: Any) -> Any:
    return REGISTRY.build(REGISTRY.params("selector", name, **values))


def states(seed: int = 0, batch: int = 3) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(seed)
    return tuple(torch.randn(LAYERS + 1, batch, 5, 8, generator=generator).unbind())


def chosen(weights: Tensor) -> list[int]:
    return weights.nonzero().flatten().tolist()


@every_selector
def test_weights_are_equal_shares(name: str, values: dict[str, Any]) -> None:
    weights = build(name, **values).weights(states(), torch.ones(3, 5, dtype=torch.bool))
    assert weights.shape == (LAYERS + 1,) and weights.dtype == torch.float32 and not weights.requires_grad
    assert float(weights.sum()) == pytest.approx(1)
    assert len(set(weights[weights > 0].tolist())) == 1


@every_selector
def test_padding_never_counts(name: str, values: dict[str, Any]) -> None:
    selector, real = build(name, **values), states()
    mask = torch.ones(3, 5, dtype=torch.bool)
    expected = selector.weights(real, mask)
    garbage = states(seed=9)
    padded = tuple(torch.cat([state, 100 * other], dim=1) for state, other in zip(real, garbage, strict=True))
    assert torch.equal(selector.weights(padded, functional.pad(mask, (0, 5))), expected)
    more = tuple(torch.cat([state, other]) for state, other in zip(real, garbage, strict=True))
    assert torch.equal(selector.weights(more, torch.cat([mask, torch.zeros_like(mask)])), expected)


def test_lafd_takes_the_layers_that_turn_the_state_most() -> None:
    teacher = states()
    mask = torch.rand(3, 5, generator=torch.Generator().manual_seed(1)) < 0.7
    similarities = [
        float(functional.cosine_similarity(lower.double(), other.double(), dim=-1)[mask].mean())
        for lower, other in pairwise(teacher)
    ]
    order = sorted(range(LAYERS), key=lambda layer: similarities[layer])
    for top_k in range(1, LAYERS + 1):
        assert chosen(build("lafd", top_k=top_k).weights(teacher, mask)) == sorted(layer + 1 for layer in order[:top_k])


def test_lafd_gives_ties_to_the_lower_index() -> None:
    state = torch.randn(2, 5, 8, generator=torch.Generator().manual_seed(0))
    mask = torch.ones(2, 5, dtype=torch.bool)
    same = (state,) * (LAYERS + 1)
    assert chosen(build("lafd", top_k=2).weights(same, mask)) == [1, 2]
    # All turns are equal but one: it comes first, then the lowest of the others.
    turned = (state, -state, state, -state, -state, state, -state)
    assert chosen(build("lafd", top_k=3).weights(turned, mask)) == [1, 2, 3]
    assert chosen(build("lafd", top_k=5).weights(turned, mask)) == [1, 2, 3, 5, 6]
    assert chosen(build("lafd", top_k=6).weights(turned, mask)) == [1, 2, 3, 4, 5, 6]


def test_lafd_does_not_see_lengths() -> None:
    scaled = tuple((layer + 1) ** 3 * state for layer, state in enumerate(states()))
    mask = torch.ones(3, 5, dtype=torch.bool)
    assert torch.equal(build("lafd").weights(scaled, mask), build("lafd").weights(states(), mask))


@pytest.mark.parametrize("metric", ["norm", "variance"])
def test_lafd_by_size_takes_the_largest(metric: str) -> None:
    teacher = states()
    mask = torch.rand(3, 5, generator=torch.Generator().manual_seed(2)) < 0.7
    mask[:, :2], mask[2] = True, False
    scores = []
    for state in teacher[1:]:
        rows = [sequence[live].double() for sequence, live in zip(state, mask, strict=True) if live.any()]
        norms = torch.cat([row.norm(dim=-1) for row in rows]).mean()
        variances = torch.stack([row.var(dim=0).mean() for row in rows]).mean()
        scores.append(float(norms if metric == "norm" else variances))
    order = sorted(range(LAYERS), key=lambda layer: -scores[layer])
    for top_k in range(1, LAYERS + 1):
        found = chosen(build("lafd", top_k=top_k, metric=metric).weights(teacher, mask))
        assert found == sorted(layer + 1 for layer in order[:top_k])


def test_lafd_settles_on_the_mean_of_the_observed_batches() -> None:
    one, other = states(seed=1), states(seed=2)
    mask = torch.ones(3, 5, dtype=torch.bool)
    selector = build("lafd", top_k=2, refresh="calibration", calibration_batches=2)
    assert selector.calibration_batches == 2 and selector.reads_states
    for batch in (one, other):
        selector.observe(batch, mask)
    both = tuple(torch.cat(pair) for pair in zip(one, other, strict=True))
    expected = chosen(build("lafd", top_k=2).weights(both, torch.cat([mask, mask])))
    assert selector.settle() == expected and not selector.reads_states and selector.calibration_batches == 0
    assert chosen(selector.weights(states(seed=3), mask)) == expected == selector.fixed_layers(LAYERS)


def test_calibration_needs_batches_and_batches_need_calibration() -> None:
    with pytest.raises(PlanError, match="no batch was observed"):
        build("lafd", refresh="calibration").settle()
    with pytest.raises(ValidationError, match="set refresh: calibration"):
        REGISTRY.params("selector", "lafd", calibration_batches=4)


def test_all_are_the_decoder_layers() -> None:
    assert chosen(build("all").weights(states(), torch.ones(3, 5, dtype=torch.bool))) == list(range(1, LAYERS + 1))


def test_more_layers_than_there_are_are_refused() -> None:
    with pytest.raises(PlanError, match=r"top_k is 7.*6 layers"):
        build("lafd", top_k=LAYERS + 1).weights(states(), torch.ones(3, 5, dtype=torch.bool))
    with pytest.raises(PlanError, match="top_k"):
        build("lafd", top_k=5).check_layers(4)
    with pytest.raises(ValidationError, match="top_k"):
        REGISTRY.params("selector", "lafd", top_k=0)


@pytest.mark.parametrize(
    ("layers", "indices"),
    [
        (["low"], [1]),
        (["mid"], [3]),
        (["high"], [6]),
        ([0], [0]),
        ([-1], [6]),
        ([-7], [0]),
        ([6, -1, "high", 6], [6]),
        ([5, 2, -5], [2, 5]),
        (["high", "low", "mid"], [1, 3, 6]),
    ],
)
def test_fixed_layers(layers: list[Any], indices: list[int]) -> None:
    weights = build("fixed", layers=layers).weights(states(), torch.ones(3, 5, dtype=torch.bool))
    assert chosen(weights) == indices and float(weights.max()) == pytest.approx(1 / len(indices))


@pytest.mark.parametrize(("depth", "middle"), [(1, 1), (2, 1), (4, 2), (5, 3), (12, 6), (28, 14)])
def test_the_middle_is_half_the_depth_rounded_up(depth: int, middle: int) -> None:
    assert build("fixed", layers=["mid"]).fixed_layers(depth) == [middle]


@pytest.mark.parametrize("layer", [7, -8, 40, -40])
def test_fixed_layers_out_of_range_are_refused(layer: int) -> None:
    with pytest.raises(PlanError, match=f"layer {layer} is out of range.*0 to 6"):
        build("fixed", layers=[layer]).check_layers(LAYERS)


@pytest.mark.parametrize("layers", [[], None, [None], ["middle"], [1.5]])
def test_what_is_no_layer_is_refused(layers: Any) -> None:
    with pytest.raises(ValidationError, match="layers"):
        REGISTRY.params("selector", "fixed", layers=layers)
