"""How a law is held to a component, and how a broken one is told."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from hypothesis import Phase, given, settings
from hypothesis.errors import Flaky, Unsatisfiable
from hypothesis.strategies import SearchStrategy
from torch import Tensor

EXAMPLES = 20
Law = Callable[[Any, Any], None]


class BrokenLawError(AssertionError):
    """A component broke a law of its contract.

    Attributes:
        law: name of the law.
        component: name of the component.
        what: what was found instead, and where.
    """

    def __init__(self, law: str, component: str, what: str):
        self.law, self.component, self.what = law, component, what
        super().__init__(f"{component}: {law}: {what}")


def expect(condition: Any, what: str) -> None:
    """Raise AssertionError that says `what` unless the condition is true."""
    if not bool(condition):
        raise AssertionError(what)


def expect_equal(found: Tensor, expected: Tensor, what: str) -> None:
    """Raise AssertionError with the place of the first difference; not a number equals itself."""
    expect(found.shape == expected.shape, f"{what}: shape is {list(found.shape)}, {list(expected.shape)} was expected")
    expect(found.dtype == expected.dtype, f"{what}: dtype is {found.dtype}, {expected.dtype} was expected")
    different = (found != expected) & ~(found.isnan() & expected.isnan())
    if bool(different.any()):
        place = different.nonzero()[0].tolist()
        values = f"{found[tuple(place)].item()}, not {expected[tuple(place)].item()}"
        raise AssertionError(f"{what} at {place}: {values}")


def law_name(law: Callable[..., Any]) -> str:
    """The name of a law, as a sentence."""
    return law.__name__.replace("_", " ")


@contextmanager
def holding(law: str, component: str) -> Iterator[None]:
    """Turn whatever is raised inside into BrokenLawError of this law."""
    try:
        yield
    except BrokenLawError:
        raise
    except AssertionError as error:
        raise BrokenLawError(law, component, str(error) or "an assertion failed") from error.__cause__
    except Exception as error:
        raise BrokenLawError(law, component, f"raised {type(error).__name__}: {error}") from error


def hold_for_examples(
    laws: Sequence[Law], component: str, build: Callable[[], Any], examples: SearchStrategy[Any]
) -> None:
    """Hold every law to `law(build(), example)` for drawn examples, the same ones at every run.

    Raises:
        BrokenLawError: the first law that does not hold, with the simplest example that shows it.
    """
    broken: list[tuple[Law, BrokenLawError]] = []

    def all_laws(example: Any) -> None:
        known = laws.index(broken[-1][0]) if broken else len(laws)
        for law in laws[:known]:
            try:
                _hold(law, component, build, example)
            except BrokenLawError as error:
                broken.append((law, error))
                return

    try:
        _draw(examples, all_laws)
    except Unsatisfiable as error:
        raise BrokenLawError("it takes some input", component, "it refuses every input that was tried") from error
    if broken:
        law, first = broken[-1]
        with suppress(Flaky):
            _draw(examples, lambda example: _hold(law, component, build, example))
        raise first


def _hold(law: Law, component: str, build: Callable[[], Any], example: Any) -> None:
    with holding(law_name(law), component):
        law(build(), example)


def _draw(examples: SearchStrategy[Any], test: Callable[[Any], None]) -> None:
    """Run a test on examples, and on simpler and simpler ones once it fails."""

    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        derandomize=True,
        database=None,
        report_multiple_bugs=False,
        phases=(Phase.generate, Phase.shrink),
    )
    @given(example=examples)
    def run(example: Any) -> None:
        test(example)

    run()
