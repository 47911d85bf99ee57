"""Labels are every turn of the assistant as the template renders it, with its end token."""

from typing import Any

import pytest
from families import FAMILIES, Family
from hypothesis import given, settings
from hypothesis import strategies as st
from small_tokenizers import KINDS, build, learned_runs

from edgerazor.data.dialogue import read_dialogue
from edgerazor.data.encoding import Encoder

Message = dict[str, Any]
TOOLS = [{"type": "function", "function": {"name": "search", "parameters": {"type": "object", "properties": {}}}}]
WORDS = st.lists(
    st.sampled_from(
        ["user", "assistant", "hello", "    return x", "\t", " ", "\n", "\n\n", "é你🙂", "no.", '{"a": 1}', "ab"]
    ),
    max_size=6,
).map("".join)
SAID = WORDS.filter(str.strip)


@st.composite
def dialogues(draw: st.DrawFn, family: Family) -> list[Message]:
    """Some exchanges; with calls, their results and an answer, where the family has calls."""
    messages = [{"role": "system", "content": draw(SAID)}] if family.system and draw(st.booleans()) else []
    for _ in range(draw(st.integers(1, 3))):
        messages.append({"role": "user", "content": draw(SAID)})
        for _ in range(draw(st.integers(0, 2)) if family.calls else 0):
            names = draw(st.lists(st.sampled_from(["search", "python"]), min_size=1, max_size=family.calls))
            calls = [
                {
                    "id": f"call0000{number}",
                    "type": "function",
                    "function": {"name": name, "arguments": {"q": draw(WORDS)}},
                }
                for number, name in enumerate(names)
            ]
            messages.append(
                {"role": "assistant", "content": draw(WORDS), "tool_calls": calls, **draw(thoughts(family))}
            )
            messages += [{"role": "tool", "content": draw(SAID), "tool_call_id": call["id"]} for call in calls]
        messages.append({"role": "assistant", "content": draw(WORDS), **draw(thoughts(family))})
    return messages


def thoughts(family: Family) -> st.SearchStrategy[dict[str, str]]:
    if family.file != "qwen3":
        return st.just({})
    return st.one_of(st.just({}), SAID.map(lambda text: {"reasoning_content": text}))


def expected(family: Family, messages: list[Message]) -> list[str]:
    """What the family writes for each turn of the assistant."""
    last_question = max(index for index, message in enumerate(messages) if message["role"] == "user")
    return [
        family.turn(message, index > last_question)
        for index, message in enumerate(messages)
        if message["role"] == "assistant"
    ]


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", FAMILIES)
def test_labels_are_the_turns_as_rendered(name: str, kind: str) -> None:
    family = FAMILIES[name]
    tokenizer = build(kind, family.special, family.bos, family.template)
    encoder = Encoder(tokenizer, 10_000)

    @settings(max_examples=12)
    @given(dialogues(family), st.booleans())
    def check(messages: list[Message], with_tools: bool) -> None:
        tools = TOOLS if family.calls and with_tools else None
        row = {"messages": messages, "tools": tools}
        (document,) = encoder.encode_dialogues([read_dialogue(row, "messages", "row 1")], ["row 1"])
        labels = [token if learned else -100 for token, learned in zip(document.ids, document.is_label, strict=True)]
        runs = learned_runs(tokenizer, document.ids.tolist(), labels)
        turns = expected(family, messages)
        if len(runs) > len(turns):  # the template ends turns in another way, so the end of the sequence was added
            assert runs.pop() == tokenizer.eos_token
        runs[-1] = runs[-1].removesuffix(family.behind_all)
        assert runs == turns

    check()
