"""The gate of the training step: it holds on every processor, and a wrong formula does not pass it."""

import pytest
import torch
import training_contestants
from answers import GateError
from training_contestants import FORWARD_KL, FULL, OURS, SEPARATE, TRAINED_SCALES, Step
from training_gate import gate
from training_models import BATCHES, SHAPES, build_pair

from edgerazor.kernels.processor import SETTING
from tests.processors import PROCESSORS, name

pytestmark = pytest.mark.slow


def step(contestant, *, autocast=False, micro_batches=1):
    dtype = torch.bfloat16 if autocast else torch.float32
    pair = build_pair(SHAPES["tiny"], BATCHES["tiny"], device="cpu", dtype=dtype)
    return Step(contestant, pair, autocast=autocast, micro_batches=micro_batches, checkpointing=micro_batches > 1)


@pytest.fixture(params=PROCESSORS, ids=name)
def processor(request, monkeypatch):
    monkeypatch.setenv(SETTING, name(request.param))
    return request.param


@pytest.mark.usefixtures("processor")
@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("micro_batches", [1, 2])
def test_ours_passes_on_every_processor(autocast, micro_batches):
    facts = gate(step(OURS, autocast=autocast, micro_batches=micro_batches))
    assert facts["difference"] < 1e-5 and facts["kept_mib"] > 0


@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("contestant", [FULL, FORWARD_KL, SEPARATE])
def test_the_others_pass(contestant, autocast):
    gate(step(contestant, autocast=autocast))


WRONG = {
    "gamma": {"uniform_support": 17},
    "weight": {"weight": 2.02},
    "temperature": {"temperature": 1.1},
    "divergence": {"name": "forward_kl"},
}


@pytest.mark.usefixtures("processor")
@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("wrong", WRONG)
def test_a_wrong_divergence_is_refused(wrong, autocast, monkeypatch):
    eakld, features = training_contestants.LOSSES
    changed = {**eakld, **WRONG[wrong]}
    if changed["name"] != "eakld":
        del changed["uniform_support"]
    monkeypatch.setattr(training_contestants, "LOSSES", [changed, features])
    with pytest.raises(GateError, match="the loss differs by"):
        gate(step(OURS, autocast=autocast))


@pytest.mark.parametrize("layers", [1, 2])
def test_features_of_other_layers_are_refused(layers, monkeypatch):
    eakld, features = training_contestants.LOSSES
    changed = {**features, "layers": {**features["layers"], "top_k": layers}}
    monkeypatch.setattr(training_contestants, "LOSSES", [eakld, changed])
    with pytest.raises(GateError, match="the loss differs by"):
        gate(step(OURS))


def test_another_weight_of_the_task_is_refused(monkeypatch):
    monkeypatch.setattr(training_contestants, "TASK", 0.101)
    with pytest.raises(GateError, match="the loss differs by"):
        gate(step(OURS))


@pytest.mark.parametrize(
    "wrong",
    [
        pytest.param(lambda loss: loss / 1.1**2, id="without T squared"),
        pytest.param(lambda loss: loss * 1.0001, id="a little more"),
        pytest.param(lambda loss: loss * float("nan"), id="no number"),
    ],
)
@pytest.mark.parametrize("contestant", [FULL, FORWARD_KL, OURS])
def test_a_loss_that_is_off_by_a_factor_is_refused(wrong, contestant):
    changed = step(contestant)
    right = changed.loss_of
    changed.loss_of = lambda shares: wrong(right(shares))
    with pytest.raises(GateError, match="the loss differs by"):
        gate(changed)


def test_a_parameter_without_a_gradient_is_refused():
    frozen = step(OURS)
    frozen.student.model.layers[1].mlp.up_proj.weight.requires_grad_(False)
    with pytest.raises(GateError, match=r"no finite gradient reaches model.layers.1.mlp.up_proj.weight \(1 in all\)"):
        gate(frozen)


def test_trained_scales_pass_and_lower_the_loss():
    trained = step(TRAINED_SCALES)
    gate(trained)
    factors = [scales.factors for _, scales in trained.scales.values()]
    losses = [float(trained.run()) for _ in range(3)]
    assert losses[-1] < losses[0]
    assert not any(torch.equal(each, torch.ones_like(each)) for each in factors)


@pytest.mark.parametrize(("what", "wrong"), [("value", 2), ("gradient of the scales", 0.99)])
def test_other_scales_or_gradients_of_them_are_refused(what, wrong):
    trained = step(TRAINED_SCALES)
    _, scales = next(iter(trained.scales.values()))
    if what == "value":
        with torch.no_grad():
            scales.factors[0, 0] = wrong
    else:
        right = scales.set_gradient
        scales.set_gradient = lambda weight, gradient: right(weight, wrong * gradient)
    with pytest.raises(GateError, match=f"the {what} of"):
        gate(trained)
