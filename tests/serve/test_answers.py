"""Thoughts, calls and stop strings are found wherever the text of a model is cut."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgerazor.serve.answers import AnswerReader
from edgerazor.serve.stops import StopStrings

CALL = '<tool_call>\n{"name": "find", "arguments": {"place": "Rome"}}\n</tool_call>'
LLAMA = '{"name": "find", "parameters": {"place": "Rome"}}'
FOUND = ("find", {"place": "Rome"})
# what is written; whether the prompt ends in a thought; thought, answer, calls
CASES = [
    ("Hello.", False, "", "Hello.", []),
    (" \n Hello \n", False, "", " \n Hello \n", []),
    ("<think>\nWhy?\n\n</think>\n\nSo.", False, "Why?", "So.", []),
    ("\n<think>a < b</think>c", False, "a < b", "c", []),
    ("Why?\n</think>\n\nSo.", True, "Why?", "So.", []),
    ("<think>\n\n</think>\n\nSo.", False, "", "So.", []),
    ("<think>without end", False, "without end", "", []),
    ("<thin", False, "", "<thin", []),
    ("<b>bold</b> </think>", False, "", "<b>bold</b> </think>", []),
    (f"Let me see.\n{CALL}", False, "", "Let me see.", [FOUND]),
    (f"{CALL}\n{CALL}", False, "", "", [FOUND, FOUND]),
    (f"<think>t</think>\n{CALL}", False, "t", "", [FOUND]),
    (CALL.removesuffix("</tool_call>"), False, "", "", [FOUND]),
    ("<tool_call>no JSON</tool_call> rest", False, "", "<tool_call>no JSON</tool_call> rest", []),
    ('<tool_call>{"arguments": {}}</tool_call>', False, "", '<tool_call>{"arguments": {}}</tool_call>', []),
    ("a <tool_box", False, "", "a <tool_box", []),
    (LLAMA, False, "", "", [FOUND]),
    (f"{LLAMA}; {LLAMA}", False, "", "", [FOUND, FOUND]),
    (f"[{LLAMA}]", False, "", "", [FOUND]),
    (f"<think>t</think>{LLAMA}", False, "t", "", [FOUND]),
    ('{"name": "unknown", "parameters": {}}', False, "", '{"name": "unknown", "parameters": {}}', []),
    ('{"a": [1, 2', False, "", '{"a": [1, 2', []),
]


def cut(text: str, places: list[int]) -> list[str]:
    """The text in pieces that end at these places."""
    ends = sorted({min(place, len(text)) for place in places} | {len(text)})
    return [text[start:end] for start, end in zip([0, *ends], ends, strict=False)]


@pytest.mark.parametrize(("text", "in_thought", "reasoning", "content", "calls"), CASES)
@given(places=st.lists(st.integers(0, 120), max_size=130))
def test_parts_do_not_depend_on_the_cuts(
    text: str, in_thought: bool, reasoning: str, content: str, calls: list[tuple[str, dict]], places: list[int]
) -> None:
    for pieces in (cut(text, places), list(text)):
        reader = AnswerReader(in_thought=in_thought, tools=["find"])
        found = [piece for part in pieces for piece in reader.add(part)] + list(reader.finish())
        assert "".join(piece.reasoning for piece in found) == reasoning
        assert "".join(piece.content for piece in found) == content
        assert [(piece.call.name, json.loads(piece.call.arguments)) for piece in found if piece.call] == calls
        assert all(piece.reasoning or piece.content or piece.call for piece in found)


def test_without_tools_no_call_is_looked_for() -> None:
    for text in (LLAMA, CALL):
        reader = AnswerReader()
        assert "".join(piece.content for piece in [*reader.add(text), *reader.finish()]) == text


@given(st.text("ab", max_size=30), st.lists(st.text("ab", min_size=1, max_size=4), max_size=3), st.data())
def test_text_ends_in_front_of_the_first_whole_stop_string(text: str, stops: list[str], data: st.DataObject) -> None:
    places = data.draw(st.lists(st.integers(0, 30), max_size=30))
    ends = [(text.find(stop) + len(stop), text.find(stop)) for stop in stops if stop in text]
    expected = text[: min(ends)[1]] if ends else text
    for pieces in (cut(text, places), list(text)):
        reader = StopStrings(stops)
        shown = "".join(reader.add(piece) for piece in pieces) + reader.finish()
        assert (shown, reader.found) == (expected, bool(ends))


def test_only_what_may_begin_a_stop_string_is_held_back() -> None:
    reader = StopStrings(["END"])
    assert [reader.add(piece) for piece in ("a", "bE", "N", "x", "EN")] == ["a", "b", "", "ENx", ""]
    assert reader.finish() == "EN"
