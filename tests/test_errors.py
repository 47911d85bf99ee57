"""One line of any error, for messages of one line."""

import pytest

from edgerazor.errors import first_line


@pytest.mark.parametrize(
    ("message", "line"), [("", "ValueError"), ("\n \n", "ValueError"), ("\n why\nand more", " why"), ("why", "why")]
)
def test_a_line_that_says_something_or_the_class(message: str, line: str) -> None:
    assert first_line(ValueError(message)) == line
