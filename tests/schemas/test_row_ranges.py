"""Lists of rows are read as they are written, and faults name the part that is at fault."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgerazor.schemas.row_ranges import format_rows, parse_rows


@settings(max_examples=50)
@given(st.sets(st.integers(0, 300), min_size=1, max_size=60))
def test_what_is_formatted_reads_back(rows: set[int]) -> None:
    text = format_rows(sorted(rows))
    assert parse_rows(text) == tuple(sorted(rows))
    assert parse_rows(text.replace(" ", "")) == parse_rows(text)


def test_neighbours_share_a_range() -> None:
    assert format_rows([0, 1, 2, 3, 17, 40, 41]) == "0-3, 17, 40-41"
    assert parse_rows(" 0 - 3 ,17") == (0, 1, 2, 3, 17)


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", "'' is neither a row"),
        ("1,,2", "'' is neither a row"),
        ("a", "'a' is neither a row"),
        ("-1", "'-1' is neither a row"),
        ("5-2", "runs backwards; expected 2-5"),
        ("3, 3", "'3' comes after row 3"),
        ("0-9, 4", "'4' comes after row 9"),
    ],
)
def test_what_is_no_list_of_rows_is_refused(text: str, fault: str) -> None:
    with pytest.raises(ValueError, match=fault):
        parse_rows(text)
