"""Turns that are looked up by the form of a dialogue lie where the template, asked for each of them, says."""

from typing import Any

import pytest
from families import FAMILIES
from hypothesis import given, settings
from hypothesis import strategies as st
from small_tokenizers import build

from edgerazor.data.chat import ChatRenderer
from edgerazor.data.dialogue import read_dialogue
from edgerazor.data.template import ChatTemplate
from edgerazor.data.turns import TurnFinder

# White space that templates strip, and what some of them look for in a message.
PARTS = ["user", "assistant", " hello", "x ", "\n", "\t", "é🙂", "\U000f0000", "{}"]
MARKS = ["<think>", "</think>", "<tool_response>", "</tool_response>", "<|im_end|>", "</s>"]
SAID = st.lists(st.sampled_from([*PARTS, *MARKS]), min_size=1, max_size=4).map("".join)
PLAIN = ["How many dogs? ", " Three: two.", "a\n\n    b", "é🙂 no"]


def renderer(name: str) -> ChatRenderer:
    family = FAMILIES[name]
    return ChatRenderer(ChatTemplate(build("byte-level", family.special, family.bos, family.template)))


@st.composite
def dialogues(draw: st.DrawFn, name: str) -> list[dict[str, Any]]:
    said = draw(st.sampled_from([SAID.filter(str.strip), st.sampled_from(PLAIN)]))
    messages = [{"role": "system", "content": draw(said)}] if FAMILIES[name].system and draw(st.booleans()) else []
    for _ in range(draw(st.integers(1, 3))):
        thought = {"reasoning_content": draw(said)} if name == "Qwen3" and draw(st.booleans()) else {}
        messages.append({"role": "user", "content": draw(said)})
        messages.append({"role": "assistant", "content": draw(said), **thought, "train": draw(st.booleans())})
    return messages


@pytest.mark.slow
@pytest.mark.parametrize("name", FAMILIES)
def test_turns_lie_where_the_template_says(name: str) -> None:
    chat = renderer(name)

    @settings(max_examples=60)
    @given(dialogues(name))
    def check(messages: list[dict[str, Any]]) -> None:
        dialogue = read_dialogue({"messages": messages}, "messages", "row 1")
        text = chat.template.render(dialogue.messages, None)
        finder = TurnFinder(chat.template, dialogue.messages, None, text, chat._special_tokens)
        found = chat._forms.find(dialogue, text)
        assert found is None or found == [finder.find(index) for index in dialogue.turns]

    check()


@pytest.mark.parametrize("name", FAMILIES)
def test_a_dialogue_of_a_known_form_is_rendered_once(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    rendered = []
    render = ChatTemplate.render
    monkeypatch.setattr(ChatTemplate, "render", lambda *given, **more: rendered.append(1) or render(*given, **more))
    chat = renderer(name)
    for first in range(len(PLAIN)):
        before = len(rendered)
        contents = [*PLAIN[first:], *PLAIN[:first]]
        messages = [{"role": role, "content": text} for text in contents for role in ("user", "assistant")]
        chat.render(read_dialogue({"messages": messages}, "messages", "row 1"), "row 1")
    assert len(rendered) - before == 1
