"""Labels of dialogues: what the assistant wrote and the token that ends its turn, nothing else."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import ByT5Tokenizer

from edgerazor.data import load_data
from edgerazor.data.chat import ChatRenderer
from edgerazor.data.dialogue import read_dialogue
from edgerazor.data.template import ChatTemplate
from edgerazor.errors import DataError
from edgerazor.schemas.data import DataSection

GENERATION_TEMPLATE = (
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' }}{% if m.role == 'assistant' %}"
    "{% generation %}{{ m.content + '<|im_end|>' }}{% endgeneration %}{% else %}{{ m.content + '<|im_end|>' }}"
    "{% endif %}{{ '\n' }}{% endfor %}"
)
TRIMMING_TEMPLATE = (
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n\n' + (m.content | trim) + '<|im_end|>' }}{% endfor %}"
)
REFUSING_TEMPLATE = "{{ raise_exception('only one turn is allowed') }}"
FORGETFUL_TEMPLATE = "{% for m in messages if m.role == 'user' %}{{ m.content }}{% endfor %}"


def dialogue(*contents, system=None):
    roles = ["user", "assistant"] * len(contents)
    messages = [{"role": role, "content": content} for role, content in zip(roles, contents, strict=False)]
    return ([{"role": "system", "content": system}] if system else []) + messages


def render(tokenizer, messages):
    dialogue = read_dialogue({"messages": messages}, "messages", "row 1")
    return ChatRenderer(ChatTemplate(tokenizer)).render(dialogue, "row 1")


def learned(tokenizer, messages):
    """The stretches of text that are labels, straight from the renderer."""
    rendered = render(tokenizer, messages)
    return [rendered.text[start:end] for start, end in rendered.spans]


def load(tokenizer, path, **section):
    return load_data(DataSection(sources=path, **{"packing": False, "sequence_length": 512, **section}), tokenizer)


def labels_of(tokenizer, row):
    return tokenizer.decode([label for label in row["labels"] if label != -100])


@pytest.mark.parametrize("template", [GENERATION_TEMPLATE, TRIMMING_TEMPLATE])
def test_answers_and_their_end_are_learned(make_tokenizer, template):
    tokenizer = make_tokenizer(template)
    # the answers occur in headers, in the questions and in each other: only their place tells them apart
    messages = dialogue("user user", "user", "im_end assistant", "assistant", system="user assistant")
    assert learned(tokenizer, messages) == ["user<|im_end|>", "assistant<|im_end|>"]


def test_thinking_template_last_turn_opens_with_an_empty_thought(thinking_tokenizer):
    messages = dialogue("one?", "yes", "two?", "no")
    text = render(thinking_tokenizer, messages).text
    assert text.endswith("assistant\n<think>\n\n</think>\n\nno<|im_end|>\n")
    assert learned(thinking_tokenizer, messages) == ["yes<|im_end|>", "no<|im_end|>"]


@pytest.mark.parametrize("in_content", [True, False])
def test_thought_is_learned_where_the_template_keeps_it(thinking_tokenizer, in_content):
    messages = dialogue("one?", "yes", "two?", "no")
    for message, thought in zip(messages[1::2], ("easy", "hard\n\nvery"), strict=True):
        if in_content:
            message["content"] = f"<think>\n{thought}\n</think>\n\n{message['content']}"
        else:
            message["reasoning_content"] = thought
    expected = ["yes<|im_end|>", "<think>\nhard\n\nvery\n</think>\n\nno<|im_end|>"]
    assert learned(thinking_tokenizer, messages) == expected


PARTS = st.sampled_from([*"aé你 \n<|im>/", "user", "<think>", "</think>", "<|im_end|>"])
WORDS = st.lists(PARTS, max_size=8).map("".join)


@given(st.lists(WORDS, min_size=2, max_size=6))
def test_whatever_is_said_each_turn_has_its_span(thinking_tokenizer, contents):
    messages = dialogue(*contents)
    spans = learned(thinking_tokenizer, messages)
    answers = [
        message["content"].split("</think>")[-1].strip() for message in messages if message["role"] == "assistant"
    ]
    assert len(spans) == len(answers)
    for span, answer in zip(spans, answers, strict=True):
        assert answer in span
        assert span.endswith("<|im_end|>") or answer == "" or span.endswith(answer)


@pytest.mark.parametrize(
    ("template", "message"),
    [
        (REFUSING_TEMPLATE, "row 1: the chat template refuses this dialogue: only one turn is allowed"),
        ("nothing", "row 1: message 2, a turn of the assistant, cannot be found"),
        (FORGETFUL_TEMPLATE, "row 1: message 2, a turn of the assistant, cannot be found"),
        (
            "{% for m in messages %}{% generation %}{% endgeneration %}{% endfor %}",
            "row 1: the chat template leaves nothing",
        ),
    ],
)
def test_turns_that_cannot_be_found(make_tokenizer, write_lines, template, message):
    path = write_lines([{"messages": dialogue("question", "answer")}])
    with pytest.raises(DataError, match=message):
        load(make_tokenizer(template), path)


@pytest.mark.parametrize("eos", ["<|im_end|>", "<|endoftext|>"])
def test_end_of_sequence_is_added_once(make_tokenizer, thinking_tokenizer, write_lines, eos):
    tokenizer = make_tokenizer(thinking_tokenizer.chat_template, eos)
    path = write_lines([{"messages": dialogue("hello", "world")}])
    (row,) = load(tokenizer, path).train
    added = "" if eos == "<|im_end|>" else eos
    assert labels_of(tokenizer, row) == "world<|im_end|>" + added
    assert tokenizer.decode(row["input_ids"]).endswith("world<|im_end|>\n" + added)
    assert row["label_bytes"] == len("world")


def test_no_end_after_the_users_last_word_or_a_cut(tokenizer, write_lines):
    path = write_lines([{"messages": [*dialogue("a", "bb"), {"role": "user", "content": "ccc"}]}])
    (row,) = load(tokenizer, path).train
    assert tokenizer.decode(row["input_ids"]) == "abbccc"
    path = write_lines([{"messages": dialogue("question", " answer" * 20)}])
    data = load(tokenizer, path, sequence_length=16)
    (row,) = data.train
    assert len(row["input_ids"]) == 16
    assert tokenizer.eos_token_id not in row["input_ids"]
    assert data.usage.cut == 1


def test_without_a_template_contents_are_concatenated(tokenizer, write_lines):
    path = write_lines([{"messages": dialogue("question\nAnswer:", " yes", " more?", " né")}])
    (row,) = load(tokenizer, path, system_prompt="Be kind. ").train
    assert tokenizer.decode(row["input_ids"]) == "Be kind. question\nAnswer: yes more? né<|endoftext|>"
    assert labels_of(tokenizer, row) == " yes né<|endoftext|>"
    assert row["label_bytes"] == len(" yes né".encode())


def test_system_prompt_only_where_there_is_none(thinking_tokenizer, write_lines):
    path = write_lines([{"messages": dialogue("a", "b", system="own")}, {"messages": dialogue("a", "b")}])
    rows = load(thinking_tokenizer, path, system_prompt="given").train
    systems = {thinking_tokenizer.decode(row["input_ids"]).split("<|im_end|>")[0] for row in rows}
    assert systems == {"<|im_start|>system\nown", "<|im_start|>system\ngiven"}


def test_dialogues_whose_answer_was_cut_off_are_counted(tokenizer, write_lines):
    rows = [{"messages": dialogue("question " * 30, "answer")}, {"messages": dialogue("q", "answer")}]
    usage = load(tokenizer, write_lines(rows), sequence_length=16).usage
    assert (usage.cut, usage.unused, usage.documents) == (1, 1, (2,))
    with pytest.raises(DataError, match="nothing is left to learn from: none of 1 documents"):
        load(tokenizer, write_lines(rows[:1]), sequence_length=16)


def test_tokenizer_is_checked(make_tokenizer, tokenizer, write_lines):
    path = write_lines([{"messages": dialogue("hello", "world")}])
    with pytest.raises(DataError, match="has no end-of-sequence token"):
        load(make_tokenizer(eos_token=None), path)
    with pytest.raises(DataError, match="but the model's vocabulary has 300 entries"):
        load_data(DataSection(sources=path), tokenizer, vocabulary_size=300)
    with pytest.raises(DataError, match="expected a fast tokenizer"):
        load(ByT5Tokenizer(), path)
