"""How a broken law is told, and what the package needs."""

import subprocess
import sys

import pytest
import torch
from hypothesis import strategies as st

from edgerazor import testing
from edgerazor.testing.laws import BrokenLawError, expect, expect_equal, hold_for_examples, holding


def numbers_are_small(limit: int, number: int) -> None:
    expect(number < limit, f"{number} is not below {limit}")


def numbers_are_even(limit: int, number: int) -> None:
    expect(number % 2 == 0, f"{number} is odd")


def test_the_first_law_that_is_broken_is_told_with_the_simplest_example() -> None:
    laws = (numbers_are_small, numbers_are_even)
    with pytest.raises(BrokenLawError, match=r"^thing: numbers are small: 40 is not below 40\nFailing") as caught:
        hold_for_examples(laws, "thing", lambda: 40, st.integers(0, 1000))
    assert (caught.value.law, caught.value.component, caught.value.what) == (
        "numbers are small",
        "thing",
        "40 is not below 40",
    )


def test_laws_that_hold_are_silent() -> None:
    hold_for_examples((numbers_are_small,), "thing", lambda: 1001, st.integers(0, 1000))


def test_what_fails_once_is_told_although_it_does_not_fail_again() -> None:
    seen: list[int] = []

    def only_the_first(subject: None, number: int) -> None:
        seen.append(number)
        expect(len(seen) > 1, "it was the first")

    with pytest.raises(BrokenLawError, match="only the first: it was the first"):
        hold_for_examples((only_the_first,), "thing", lambda: None, st.integers())


def test_other_errors_are_told_as_what_they_are() -> None:
    with pytest.raises(BrokenLawError, match="thing: law: raised KeyError: 'x'") as caught, holding("law", "thing"):
        _ = {}["x"]
    assert isinstance(caught.value.__cause__, KeyError)


def test_the_place_of_a_difference_is_told() -> None:
    one = torch.tensor([[1.0, torch.nan], [2.0, 3.0]])
    expect_equal(one, one.clone(), "same")
    with pytest.raises(AssertionError, match=r"^numbers at \[1, 0\]: 2.0, not 5.0$"):
        expect_equal(one, torch.tensor([[1.0, torch.nan], [5.0, 4.0]]), "numbers")
    with pytest.raises(AssertionError, match=r"numbers: shape is \[2, 2\], \[4\] was expected"):
        expect_equal(one, one.flatten(), "numbers")
    with pytest.raises(AssertionError, match=r"numbers: dtype is torch.float32, torch.float64 was expected"):
        expect_equal(one, one.double(), "numbers")


@pytest.mark.parametrize("name", testing.__all__)
def test_every_public_name_is_documented(name: str) -> None:
    assert getattr(testing, name).__doc__


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match=r"'edgerazor.testing' has no attribute 'check_everything'"):
        _ = testing.check_everything


@pytest.mark.subprocess
def test_without_hypothesis_the_error_says_what_to_install() -> None:
    code = "import sys; sys.modules['hypothesis'] = None; from edgerazor.testing import check_selector"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stderr.splitlines()[-1] == (
        "ImportError: edgerazor.testing needs the package hypothesis: pip install hypothesis"
    )
