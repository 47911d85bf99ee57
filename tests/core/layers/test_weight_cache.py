"""The weight cache: one quantization per step, and never a stale value, whoever writes the weight (KERNELS 1.7)."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from edgerazor.core.layers.embedding import make_embedding
from edgerazor.core.layers.linear import QuantLinear, make_linear
from edgerazor.core.layers.weight_cache import WeightCache, cached_weights
from tests.plugins.quantizer_cases import build

INT8 = {"bits": 8, "group_size": 16, "scale_dtype": "float32"}


class Tied(nn.Module):
    """An embedding, a layer and a head with the weight of the embedding."""

    def __init__(self, table: str = "int"):
        super().__init__()
        torch.manual_seed(0)
        self.embed, self.body, self.head = nn.Embedding(32, 64), nn.Linear(64, 64), nn.Linear(64, 32, bias=False)
        self.head.weight = self.embed.weight
        values = {"bits": 4} if table == "int" else {"high_ratio": 0.125}
        quantizer = build(table, **values, group_size=32)
        make_embedding(self.embed, quantizer)
        make_linear(self.head, quantizer, build("int", **INT8))
        make_linear(self.body, build("ternary", group_size=32), build("int", **INT8))

    def forward(self, ids: Tensor) -> Tensor:
        return self.head(self.body(self.embed(ids)))  # type: ignore[no-any-return]


def ids() -> Tensor:
    return torch.arange(12).reshape(2, 6)


def gradients(model: nn.Module) -> list[Tensor]:
    model.zero_grad()
    model(ids()).square().sum().backward()
    return [value.grad.clone() for value in model.parameters() if value.grad is not None]


@pytest.mark.parametrize("table", ["int", "sqmp"])
@pytest.mark.parametrize("policy", ["full", "codes", "off"])
@pytest.mark.parametrize("autocast", [False, True])
def test_a_cache_changes_no_bit(table: str, policy: Any, autocast: bool) -> None:
    model = Tied(table)
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
        plain, expected = model(ids()), gradients(model)
        with cached_weights(model, policy=policy):
            for _ in range(2):
                assert torch.equal(model(ids()), plain)
                assert all(
                    torch.equal(gradient, other) for gradient, other in zip(gradients(model), expected, strict=True)
                )
        assert all(module.weight_cache is None for module in (model.embed, model.body, model.head))


def test_each_weight_is_quantized_once_per_optimizer_step() -> None:
    model = Tied("sqmp")
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with cached_weights(model, policy="full") as cache:
        for step in range(1, 4):
            for _ in range(3):
                model(ids()).square().sum().backward()
            assert cache.quantizations == 2 * step
            optimizer.step()
            optimizer.zero_grad()
            # This look at the new weights serves the next step.
            assert torch.equal(model(ids()).detach(), uncached(model))


def uncached(model: nn.Module) -> Tensor:
    modules: list[Any] = [module for module in model.modules() if getattr(module, "weight_cache", None)]
    caches = [module.weight_cache for module in modules]
    for module in modules:
        module.weight_cache = None
    with torch.no_grad():
        result: Tensor = model(ids())
    for module, cache in zip(modules, caches, strict=True):
        module.weight_cache = cache
    return result


def optimized(name: str, **options: Any) -> Callable[[Tied, WeightCache], None]:
    def write(model: Tied, cache: WeightCache) -> None:
        optimizer = getattr(torch.optim, name)(model.parameters(), lr=0.5, **options)
        model(ids()).square().sum().backward()
        optimizer.step()

    return write


def flat_buffer(model: Tied, cache: WeightCache) -> None:
    weight = model.body.weight
    flat = weight.detach().clone().flatten()
    weight.data = flat.view_as(weight)
    model(ids())
    flat.mul_(-1)
    cache.invalidate()


def through_numpy(model: Tied, cache: WeightCache) -> None:
    values: np.ndarray = model.body.weight.detach().numpy()
    values *= -1
    cache.invalidate()


def no_grad_copy(model: Tied, cache: WeightCache) -> None:
    with torch.no_grad():
        model.body.weight.copy_(-model.body.weight)


def data_copy(model: Tied, cache: WeightCache) -> None:
    model.body.weight.data.copy_(-model.body.weight)
    cache.invalidate()


def new_data(model: Tied, cache: WeightCache) -> None:
    model.body.weight.data = -model.body.weight.data


def set_(model: Tied, cache: WeightCache) -> None:
    with torch.no_grad():
        model.body.weight.set_(-model.body.weight.detach())


def loaded(assign: bool) -> Callable[[Tied, WeightCache], None]:
    def write(model: Tied, cache: WeightCache) -> None:
        state = {key: -value for key, value in model.state_dict().items()}
        model.load_state_dict(state, assign=assign)

    return write


def swapped_and_back(model: Tied, cache: WeightCache) -> None:
    """An average of weights swapped in through `.data`, as evaluation with it does."""
    weight, own = model.body.weight, model.body.weight.detach().clone()
    weight.data.copy_(-own)
    cache.invalidate()
    assert torch.equal(model(ids()).detach(), uncached(model))
    weight.data.copy_(2 * own)
    cache.invalidate()


WRITERS: dict[str, Callable[[Tied, WeightCache], None]] = {
    "adamw for-loop": optimized("AdamW", foreach=False),
    "adamw foreach": optimized("AdamW", foreach=True),
    "adamw fused": optimized("AdamW", fused=True),
    "sgd": optimized("SGD"),
    "no_grad copy_": no_grad_copy,
    "data.copy_": data_copy,
    "flat buffer": flat_buffer,
    "numpy": through_numpy,
    "data =": new_data,
    "set_": set_,
    "load_state_dict": loaded(False),
    "load_state_dict assign": loaded(True),
    "average swapped in": swapped_and_back,
}


@pytest.mark.parametrize("writer", WRITERS)
@pytest.mark.parametrize("policy", ["full", "codes"])
def test_no_value_is_stale_after(writer: str, policy: Any) -> None:
    model = Tied("sqmp")
    with cached_weights(model, policy=policy) as cache:
        before = model(ids()).detach()
        WRITERS[writer](model, cache)
        after = model(ids()).detach()
        assert torch.equal(after, uncached(model)) and not torch.equal(after, before)


def test_checking_finds_a_writer_that_says_nothing() -> None:
    model = Tied()
    with cached_weights(model, check=True):
        model(ids())
        model.body.weight.data.mul_(-1)
        with pytest.raises(AssertionError, match="invalidate"):
            model(ids())


@pytest.mark.parametrize("group_size", [32, 256])
def test_checking_finds_a_writer_whose_weight_is_read_as_codes_alone(group_size: int) -> None:
    module = nn.Linear(512, 8)
    make_linear(module, build("ternary", group_size=group_size), build("int", **{**INT8, "group_size": group_size}))
    with cached_weights(module, check=True):
        module(torch.randn(3, 512))
        module.weight.data.mul_(-1)
        with pytest.raises(AssertionError, match="invalidate"):
            module(torch.randn(3, 512))


def test_an_optimizer_of_another_model_costs_one_more_quantization_and_no_error() -> None:
    model, other = Tied(), nn.Linear(3, 3)
    with cached_weights(model) as cache:
        model(ids())
        made = cache.quantizations
        other(torch.ones(3)).sum().backward()
        torch.optim.SGD(other.parameters(), lr=0.1).step()
        model(ids())
        assert cache.quantizations == 2 * made


def test_a_change_between_forward_and_backward_is_refused() -> None:
    model = Tied()
    with cached_weights(model):
        out = model(ids()).sum()
        model.load_state_dict(model.state_dict())
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            out.backward()


def test_a_value_made_in_inference_mode_serves_training() -> None:
    model = Tied("sqmp")
    with cached_weights(model):
        with torch.inference_mode():
            model(ids())
        model(ids()).square().sum().backward()
    assert all(value.grad is not None for value in model.parameters())


def test_the_cache_goes_with_its_weights() -> None:
    model = Tied()
    with cached_weights(model) as cache:
        model(ids())
        kept = len(cache._entries)
        model.body.weight = nn.Parameter(model.body.weight.detach().clone())
        model(ids())
        assert kept == 2 == len(cache._entries)
        assert isinstance(model.body, QuantLinear)
