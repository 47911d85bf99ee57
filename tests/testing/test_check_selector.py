"""Built-in layer selectors pass the check; every fault is caught by the law that names it."""

from typing import Any

import pytest

from edgerazor.testing import BrokenLawError, check_selector
from edgerazor.testing.laws import law_name
from edgerazor.testing.selector import LAWS
from tests.testing import faulty_selectors
from tests.testing.faults import REGISTRY, faulty, unbroken, with_code

# A selector that is not named here runs with its defaults.
PARAMETERS: dict[str, list[dict[str, Any]]] = {
    "fixed": [{"layers": ["low", "mid", -1]}],
    "lafd": [{"metric": metric} for metric in ("cosine", "norm", "variance")],
}
CASES = [(name, values) for name in REGISTRY.names("selector") for values in PARAMETERS.get(name, [{}])]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "values"), CASES)
def test_built_in_selectors_keep_the_laws(name: str, values: dict[str, Any]) -> None:
    check_selector(REGISTRY.params("selector", name, **values), registry=REGISTRY)


@pytest.mark.slow
@pytest.mark.usefixtures("few_examples")
@pytest.mark.parametrize("code", faulty(faulty_selectors))
def test_a_fault_is_named(code: Any) -> None:
    with pytest.raises(BrokenLawError) as caught:
        check_selector(with_code(REGISTRY.params("selector", "all"), code), registry=REGISTRY)
    assert caught.value.law == law_name(code.breaks), caught.value


def test_every_law_is_broken_by_some_fault() -> None:
    assert not unbroken(LAWS, faulty_selectors)


def test_what_the_faults_are_made_of_is_sound() -> None:
    check_selector(with_code(REGISTRY.params("selector", "all"), faulty_selectors.Plain), registry=REGISTRY)


@pytest.mark.slow
def test_layers_that_the_parameters_need_must_be_given() -> None:
    params = REGISTRY.params("selector", "lafd", top_k=9)
    with pytest.raises(BrokenLawError, match="raised PlanError: lafd: top_k is 9"):
        check_selector(params, registry=REGISTRY)
    check_selector(params, layers=9, registry=REGISTRY)
