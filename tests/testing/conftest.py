"""Faults show on few examples."""

import pytest

from edgerazor.testing import laws


@pytest.fixture
def few_examples(monkeypatch: pytest.MonkeyPatch) -> None:
    """Checks draw eight examples, which is quicker and enough for what is plainly wrong."""
    monkeypatch.setattr(laws, "EXAMPLES", 8)
