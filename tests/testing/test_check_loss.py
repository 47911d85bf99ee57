"""Built-in losses pass the check; every fault is caught by the law that names it."""

from typing import Any

import pytest

from edgerazor.testing import BrokenLawError, check_loss
from edgerazor.testing.laws import law_name
from edgerazor.testing.loss import LAWS
from tests.testing import faulty_losses
from tests.testing.faults import REGISTRY, faulty, unbroken, with_code

ALL: dict[str, Any] = {"layers": {"name": "all"}}
LAFD: dict[str, Any] = {"layers": {"name": "lafd", "top_k": 2}}
# A loss that is not named here runs with its defaults; tests/plugins has the laws for many more parameters.
PARAMETERS: dict[str, list[dict[str, Any]]] = {
    "eakld": [{"scope": "batch"}, {"scope": "sequence", "temperature": 2.0}],
    "cakld": [{"scope": "token", "reduction": "token_mean"}],
    "feature_mse": [LAFD, {**ALL, "projection": "linear"}],
    "feature_cosine": [ALL],
    "attention_relation": [ALL],
    "key_value_relation": [{**ALL, "component": "both"}],
}
CASES = [(name, values) for name in REGISTRY.names("loss") for values in PARAMETERS.get(name, [{}])]
# What is chosen once per forward pass depends on what shares the batch (METHOD 4.7).
PER_FORWARD_PASS = ({"scope": "batch"}, LAFD)
MEASURE = REGISTRY.params("loss", "reverse_kl", weight=2.0)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "values"), CASES)
def test_built_in_losses_keep_the_laws(name: str, values: dict[str, Any]) -> None:
    params = REGISTRY.params("loss", name, **values)
    chooses = any(choice.items() <= values.items() for choice in PER_FORWARD_PASS)
    # Neither compares the student with its teacher as they are.
    free = name == "router_z" or "projection" in values
    check_loss(params, chooses_per_pass=chooses, at_teacher="any" if free else "zero", registry=REGISTRY)


@pytest.mark.slow
@pytest.mark.usefixtures("few_examples")
@pytest.mark.parametrize("code", faulty(faulty_losses))
def test_a_fault_is_named(code: Any) -> None:
    with pytest.raises(BrokenLawError) as caught:
        check_loss(with_code(MEASURE, code), registry=REGISTRY)
    assert caught.value.law == law_name(code.breaks), caught.value


def test_every_law_is_broken_by_some_fault() -> None:
    assert not unbroken(LAWS, faulty_losses)


def test_what_the_faults_are_made_of_is_sound() -> None:
    check_loss(with_code(MEASURE, faulty_losses.Plain), registry=REGISTRY)


@pytest.mark.slow
def test_a_choice_per_forward_pass_must_be_said() -> None:
    params = REGISTRY.params("loss", "eakld", scope="batch")
    with pytest.raises(BrokenLawError, match="micro batches add up to the step"):
        check_loss(params, registry=REGISTRY)


@pytest.mark.slow
def test_at_the_teacher_a_loss_may_be_anything_if_it_says_so() -> None:
    params = with_code(MEASURE, faulty_losses.PullingTowardsHalf)
    check_loss(params, at_teacher="any", registry=REGISTRY)
    with pytest.raises(BrokenLawError, match=r"gets a gradient of .* where both agree|a little away"):
        check_loss(params, at_teacher="minimum", registry=REGISTRY)
