"""A model that divides the product of its head, as Granite does: losses see the logits that the model gives."""

import itertools
from typing import Any

import pytest
import torch
from torch.nn import functional

from edgerazor.adapters.decoder import output_head
from edgerazor.core.contracts import Signal
from edgerazor.core.outputs import ModelOutput, Targets
from edgerazor.core.registry import Registry
from edgerazor.errors import PlanError
from edgerazor.kernels.cpu_products import CodedMatrix, CodedOperands
from edgerazor.kernels.projection import Projection
from tests.distill.distillers import distiller
from tests.families import family_config, family_model

IDS = torch.randint(3, 96, (2, 9), generator=torch.Generator().manual_seed(0))
LOSSES: list[dict[str, Any]] = [{"name": "eakld", "weight": 2.0}, {"name": "reverse_kl", "weight": 0.5}]


@pytest.fixture(scope="module")
def granites() -> tuple[Any, Any]:
    """Student and teacher, whose logits are divided by other numbers."""
    return family_model("granite3", logits_scaling=6.0), family_model(
        "granite3", logits_scaling=4.0, initializer_range=0.2
    )


def test_the_total_is_that_of_the_logits_that_the_models_give(granites: tuple[Any, Any], registry: Registry) -> None:
    student, teacher = granites
    composed, targets = distiller(registry, LOSSES, task_weight=0.3, family="granite"), Targets.from_labels(IDS)
    found = composed(student, teacher, {"input_ids": IDS}, targets).value
    given = [model(input_ids=IDS).logits for model in granites]
    outputs = [ModelOutput.from_logits(logits) for logits in given]
    expected = 0.3 * functional.cross_entropy(given[0][:, :-1].flatten(0, 1), IDS[:, 1:].flatten())
    for loss in composed.losses:
        expected = expected + loss(*outputs, targets).value
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)
    gradients = [
        torch.autograd.grad(value, student.lm_head.weight, retain_graph=True)[0] for value in (found, expected)
    ]
    torch.testing.assert_close(*gradients, rtol=1e-3, atol=1e-6)


def test_logits_of_a_forward_pass_are_the_models_own(granites: tuple[Any, Any], registry: Registry) -> None:
    with torch.no_grad():
        output = registry.adapter_for("granite").forward(granites[0], {"input_ids": IDS}, {Signal.LOGITS})
        assert torch.equal(output.logits, granites[0](input_ids=IDS).logits)
    assert output_head(granites[0]).projection().divisor == 1


def test_capped_logits_are_refused_before_training(registry: Registry) -> None:
    composed, plain = distiller(registry, LOSSES, family="gemma3_text"), family_config("gemma3")
    composed.check_models(plain, plain)
    for pair in itertools.permutations((plain, family_config("gemma3", final_logit_softcapping=30.0))):
        with pytest.raises(PlanError, match="losses that run inside the head cannot see"):
            composed.check_models(*pair)


def test_products_of_codes_are_divided_too() -> None:
    generator = torch.Generator().manual_seed(0)
    codes = [torch.randint(-7, 8, (rows, 512), generator=generator, dtype=torch.int8) for rows in (5, 24)]
    scales = [torch.rand(rows, 2, generator=generator) for rows in (5, 24)]
    x, weight = (CodedMatrix(*pair) for pair in zip(codes, scales, strict=True))
    values = [part.codes.float() * part.scale.repeat_interleave(256, dim=1) for part in (x, weight)]
    plain = Projection(*values)
    expected = plain.logits(slice(None)) / 6
    for projection in (plain, plain._replace(codes=CodedOperands(x, weight))):
        torch.testing.assert_close(projection.divided(6.0).logits(slice(None)), expected, rtol=1e-4, atol=1e-4)
