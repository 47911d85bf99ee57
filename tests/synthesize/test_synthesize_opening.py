"""Where templates of all kinds open a turn of the user."""

import pytest
from synthesize_cases import assistant, user

from edgerazor.data.template import ChatTemplate
from edgerazor.errors import SynthesisError
from edgerazor.synthesize.opening import UserTurn, find_user_turn
from tests.runs import tokenizer

LOOP = "{%% for m in messages %%}%s{%% endfor %%}{%% if add_generation_prompt %%}%s{%% endif %%}"
CHATML = LOOP % ("<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n", "<|im_start|>assistant\n")
SYSTEM = "{% if messages[0].role != 'system' %}<|im_start|>system\nBe kind.<|im_end|>\n{% endif %}"
INST = (
    "<s>{% for m in messages %}{% if m.role == 'user' %}[INST] {{ m.content | trim }} [/INST]"
    "{% else %} {{ m.content }}</s>{% endif %}{% endfor %}"
)
ALTERNATING = "{% if messages | length > 1 %}{{ raise_exception('one at a time') }}{% endif %}" + CHATML
FOUND = {
    SYSTEM + CHATML: UserTurn(
        "<|im_start|>system\nBe kind.<|im_end|>\n<|im_start|>user\n", "<|im_end|>\n<|im_start|>assistant\n"
    ),
    INST: UserTurn("<s>[INST] ", " [/INST]"),
    LOOP % ("{{ m.content }}\n", ""): UserTurn("", "\n"),
}
REFUSED = {
    LOOP % ("{{ m.content | upper }}\n", ""): "does not show a user's words as they are",
    LOOP % ("{% if m.role == 'assistant' %}{{ m.content }}{% endif %}", ""): "does not show a user's words",
    LOOP % ("{{ m.content }} I repeat: {{ m.content }}\n", ""): "repeats a user's words",
    LOOP % ("({{ m.content | length }}) {{ m.content }}\n", ""): "depends on them",
    "{{ raise_exception('no users') }}": "refuses a user's message here: no users",
    None: "has no chat template",
}


def template(text: str | None) -> ChatTemplate:
    words = tokenizer()
    words.chat_template = text
    return ChatTemplate(words)


@pytest.mark.parametrize("text", FOUND)
def test_the_template_is_asked_where_a_user_speaks(text: str) -> None:
    assert find_user_turn(template(text), [], "model") == FOUND[text]


def test_earlier_turns_come_before() -> None:
    around = find_user_turn(template(CHATML), [user("a"), assistant("b")], "model")
    assert around.before.endswith(
        "<|im_start|>user\na<|im_end|>\n<|im_start|>assistant\nb<|im_end|>\n<|im_start|>user\n"
    )
    with pytest.raises(SynthesisError, match="one at a time"):
        find_user_turn(template(ALTERNATING), [user("a"), assistant("b")], "model")


@pytest.mark.parametrize("text", REFUSED)
def test_a_template_that_opens_no_turn_is_refused(text: str | None) -> None:
    with pytest.raises(SynthesisError, match=f"model: .*{REFUSED[text]}"):
        find_user_turn(template(text), [], "model")
