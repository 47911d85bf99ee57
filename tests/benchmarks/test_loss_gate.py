"""The gate of the loss benchmark: right losses pass, wrong ones do not."""

import logits_loss
import loss_contestants
import pytest
import torch
from answers import GateError
from loss_contestants import EXACT, OURS, SEPARATE
from loss_inputs import make_inputs


def gate(contestant, what, dtype=torch.float32):
    return logits_loss._gate(contestant, what, make_inputs(2, 12, 320, 64, dtype=dtype, device="cpu").first(24))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("what", ["logits", "fused"])
@pytest.mark.parametrize("contestant", [OURS, EXACT, SEPARATE])
def test_right_losses_pass(contestant, what, dtype):
    assert gate(contestant, what, dtype)["value_error"] < 5e-2


@pytest.mark.parametrize("what", ["logits", "fused"])
def test_another_gamma_is_refused(what, monkeypatch):
    monkeypatch.setattr(loss_contestants, "SUPPORT", 17)
    with pytest.raises(GateError, match="the value differs by"):
        gate(OURS, what)


def test_another_weight_of_the_task_is_refused(monkeypatch):
    monkeypatch.setattr(loss_contestants, "TASK", 0.101)
    with pytest.raises(GateError, match="the value differs by"):
        gate(OURS, "fused")


def test_a_wrong_gradient_is_refused_though_the_value_is_right(monkeypatch):
    right = loss_contestants.build

    def build(name, what, inputs):
        run = right(name, what, inputs)

        def wrong():
            value, gradients = run()
            return value, tuple(1.01 * gradient for gradient in gradients)

        return wrong

    monkeypatch.setattr(loss_contestants, "build", build)
    with pytest.raises(GateError, match="a gradient differs by"):
        gate(OURS, "logits")
