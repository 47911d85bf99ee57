"""The predicted loss is the divergence that small errors cause."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional

from edgerazor.allocate.sensitivity import measure_sensitivity, row_losses
from edgerazor.core.layers.matrices import Matrices
from edgerazor.errors import DataError
from tests.plugins.quantizer_cases import build

NAMES = ("model.layers.0.self_attn.v_proj", "model.layers.0.mlp.up_proj", "model.layers.1.self_attn.o_proj")


@pytest.fixture(scope="module")
def setting(build_model, registry):
    model = build_model(seed=4)
    ids = torch.randint(0, 96, (8, 24), generator=torch.Generator().manual_seed(0))
    return model, {"input_ids": ids, "labels": ids}, registry.adapter_for("qwen3")


def measured(setting, names=NAMES, repeats=48, seed=0):
    model, batch, adapter = setting
    weights = {name: model.get_submodule(name).weight for name in names}
    return measure_sensitivity(model, weights, [batch] * repeats, adapter=adapter, seed=seed)


def divergence(reference: nn.Module, moved: nn.Module, ids: torch.Tensor) -> float:
    """KL(reference, moved) per predicted token."""
    with torch.no_grad():
        lp, lq = (model(input_ids=ids, use_cache=False).logits[:, :-1].log_softmax(-1) for model in (reference, moved))
    return float(functional.kl_div(lq.flatten(0, 1), lp.flatten(0, 1), reduction="batchmean", log_target=True))


@pytest.mark.slow
def test_it_predicts_the_divergence_of_random_errors(setting) -> None:
    """Errors of random sign: off-diagonal terms cancel on average, so the diagonal is all there is to second order."""
    model, batch, _ = setting
    fisher = measured(setting).fisher
    for name in NAMES:
        found, generator = [], torch.Generator().manual_seed(1)
        size = 0.02 * torch.rand(model.get_submodule(name).weight.shape, generator=generator)
        for _ in range(16):
            moved = copy.deepcopy(model)
            signs = torch.randint(0, 2, size.shape, generator=generator) * 2 - 1
            moved.get_submodule(name).weight.data += size * signs
            found.append(divergence(model, moved, batch["input_ids"]))
        predicted = float((fisher[name] * size.square()).sum() / 2)
        assert predicted == pytest.approx(sum(found) / len(found), rel=0.2), name


def test_it_counts_predicted_tokens_and_depends_on_nothing_but_the_seed(setting) -> None:
    one, again, other = (measured(setting, NAMES[:1], 2, seed).fisher[NAMES[0]] for seed in (0, 0, 1))
    assert torch.equal(one, again) and not torch.equal(one, other)
    assert measured(setting, NAMES[:1], 3).tokens == 3 * 8 * 23


def test_the_model_is_left_as_it_was(setting) -> None:
    model, _, _ = setting
    before = {name: value.clone() for name, value in model.state_dict().items()}
    measured(setting, repeats=1)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(parameter.grad is None and not parameter.requires_grad for parameter in model.parameters())


def test_nothing_to_predict_is_an_error(setting) -> None:
    model, batch, adapter = setting
    blank = {**batch, "labels": torch.full_like(batch["labels"], -100)}
    weights = {NAMES[0]: model.get_submodule(NAMES[0]).weight}
    with pytest.raises(DataError, match="no token to predict"):
        measure_sensitivity(model, weights, [blank], adapter=adapter)


def test_row_losses_are_half_the_weighted_square_error() -> None:
    generator = torch.Generator().manual_seed(2)
    weight, fisher = (torch.randn(6, 64, generator=generator) for _ in range(2))
    quantizer = build("ternary", group_size=32)
    error = quantizer.quantize(weight).dequantize() - weight
    expected = (fisher.abs() * error**2).double().sum(-1) / 2
    assert torch.allclose(row_losses(fisher.abs(), weight, quantizer), expected, rtol=1e-6)
    halves = Matrices.along_last_axis((2, 3, 64), count=2)
    stacked = row_losses(
        fisher.abs().reshape(2, 3, 64), weight.reshape(2, 3, 64), build("sqmp", high_ratio=0.5), halves
    )
    assert stacked.shape == (6,)
    high = row_losses(fisher.abs(), weight, build("int", bits=4))
    assert torch.allclose(stacked[[0, 2, 3, 5]], high[[0, 2, 3, 5]]), "each block counts its rows from 0"
