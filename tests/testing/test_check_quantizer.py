"""Built-in quantizers pass the check; every fault is caught by the law that names it."""

from typing import Any

import pytest

from edgerazor.testing import BrokenLawError, check_quantizer
from edgerazor.testing.laws import law_name
from edgerazor.testing.quantizer import LAWS
from tests.testing import faulty_quantizers
from tests.testing.faults import REGISTRY, faulty, unbroken, with_code

# A quantizer that is not named here runs with its defaults; tests/plugins has the laws for many more parameters.
PARAMETERS: dict[str, list[dict[str, Any]]] = {
    "int": [{"bits": 2, "symmetric": False}, {"bits": 4}, {"bits": 8, "group_size": None, "scale_dtype": "float32"}],
    "ternary": [{}, {"scale": "absmax"}],
    "unsigned_int": [{"bits": 8}, {"bits": 3, "group_size": None}],
    "sqmp": [{"high_ratio": 0.125}, {"high_ratio": 0.25, "placement": "variance_groups"}],
}
CASES = [(name, values) for name in REGISTRY.names("quantizer") for values in PARAMETERS.get(name, [{}])]
INT4 = REGISTRY.params("quantizer", "int", bits=4, group_size=32)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "values"), CASES)
def test_built_in_quantizers_keep_the_laws(name: str, values: dict[str, Any]) -> None:
    check_quantizer(REGISTRY.params("quantizer", name, **{"group_size": 32, **values}), registry=REGISTRY)


@pytest.mark.slow
@pytest.mark.usefixtures("few_examples")
@pytest.mark.parametrize("code", faulty(faulty_quantizers))
def test_a_fault_is_named(code: Any) -> None:
    with pytest.raises(BrokenLawError) as caught:
        check_quantizer(with_code(INT4, code), registry=REGISTRY)
    assert caught.value.law == law_name(code.breaks), caught.value


def test_every_law_is_broken_by_some_fault() -> None:
    assert not unbroken(LAWS, faulty_quantizers)


def test_what_the_faults_are_made_of_is_sound() -> None:
    check_quantizer(with_code(INT4, faulty_quantizers.Plain), registry=REGISTRY)


def test_a_failure_says_what_and_shows_the_example() -> None:
    with pytest.raises(BrokenLawError, match=r"^int: fake quantize is what quantize stores: .* at \[\d") as caught:
        check_quantizer(with_code(INT4, faulty_quantizers.RoundingInTheDtypeOfItsInput), registry=REGISTRY)
    assert isinstance(caught.value, AssertionError)
    assert any("TensorExample(shape=" in note for note in caught.value.__notes__)


def test_a_quantizer_that_refuses_everything_is_told_so() -> None:
    with pytest.raises(BrokenLawError, match="refuses every input"):
        check_quantizer(REGISTRY.params("quantizer", "sqmp", high_ratio=0.01, placement="variance_rows"))
