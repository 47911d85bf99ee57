"""The client of OpenAI holds conversations with a server of ours: blocking, streaming and async."""

import asyncio
import json
from typing import Any

import numpy as np
import openai
import pytest

from edgerazor.inference.generate import GenerationSettings, generate_text
from tests.runs import tokenizer
from tests.serve.serving import Address

TOOL = {"type": "function", "function": {"name": "find", "parameters": {"type": "object", "properties": {}}}}


@pytest.fixture(scope="module")
def client(server: Address) -> openai.OpenAI:
    return openai.OpenAI(base_url=server.base_url, api_key="any", max_retries=0)


def says(*texts: str) -> list[dict[str, str]]:
    return [{"role": role, "content": text} for role, text in zip(("user", "assistant") * 9, texts, strict=False)]


def test_models_are_listed(client: openai.OpenAI) -> None:
    listed = list(client.models.list())
    assert [model.id for model in listed] == ["parrot", "tiny"]
    assert listed[0].owned_by == "edgerazor" and listed[0].object == "model"
    assert client.models.retrieve("tiny").id == "tiny"


def test_a_dialogue_of_several_turns(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(model="parrot", messages=says("naïve 🙂", "yes", "And now?"))
    choice = answer.choices[0]
    assert (choice.message.role, choice.message.content, choice.finish_reason) == ("assistant", "And now?", "stop")
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens
    parts = [{"type": "text", "text": "one "}, {"type": "text", "text": "two"}]
    assert (
        client.chat.completions.create(model="parrot", messages=[{"role": "user", "content": parts}])
        .choices[0]
        .message.content
        == "one two"
    )


def test_a_stream_is_the_whole_answer(client: openai.OpenAI) -> None:
    stream = client.chat.completions.create(
        model="parrot", messages=says("naïve 🙂 text"), stream=True, stream_options={"include_usage": True}
    )
    chunks = list(stream)
    assert chunks[0].choices[0].delta.role == "assistant"
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks[:-1]) == "naïve 🙂 text"
    assert [chunk.choices[0].finish_reason for chunk in chunks[:-1]] == [None] * (len(chunks) - 2) + ["stop"]
    assert not chunks[-1].choices and chunks[-1].usage.completion_tokens == len(
        tokenizer()("naïve 🙂 text")["input_ids"]
    )


def test_many_async_clients_at_once(server: Address) -> None:
    async def ask_all() -> list[str]:
        async with openai.AsyncOpenAI(base_url=server.base_url, api_key="any", max_retries=0) as client:

            async def ask(number: int) -> str:
                stream = await client.chat.completions.create(
                    model="parrot", messages=says(f"number {number}"), stream=True
                )
                return "".join([chunk.choices[0].delta.content or "" async for chunk in stream])

            return await asyncio.gather(*map(ask, range(16)))

    assert asyncio.run(ask_all()) == [f"number {number}" for number in range(16)]


def test_a_real_model_writes_what_generate_writes(server: Address, client: openai.OpenAI) -> None:
    tiny = server.models[1].runtime
    for prompt, length in (("def f1(x):", 30), ("ret", 200)):
        answer = client.completions.create(model="tiny", prompt=prompt, max_tokens=length, temperature=0)
        expected = generate_text(tiny, prompt, GenerationSettings(length, chat=False))
        assert answer.choices[0].text == expected
    one, other = (
        client.completions.create(model="tiny", prompt="def", max_tokens=20, seed=5, top_p=0.9).choices[0].text
        for _ in range(2)
    )
    assert one == other


def test_a_thought_is_no_part_of_the_answer(client: openai.OpenAI) -> None:
    ask = client.chat.completions.create
    message = ask(model="parrot", messages=says("<think>\nWhy?\n</think>\n\nSo.")).choices[0].message
    assert (message.content, message.reasoning_content) == ("So.", "Why?")
    message = (
        ask(
            model="parrot",
            messages=says("Why?\n</think>\n\nSo."),
            extra_body={"chat_template_kwargs": {"thinking": True}},
        )
        .choices[0]
        .message
    )
    assert (message.content, message.reasoning_content) == ("So.", "Why?")


@pytest.mark.parametrize("stream", [False, True])
def test_calls_of_tools(client: openai.OpenAI, stream: bool) -> None:
    text = 'Let me look.\n<tool_call>\n{"name": "find", "arguments": {"place": "Rom\\u00e9"}}\n</tool_call>'
    given: dict[str, Any] = {"model": "parrot", "messages": says(text), "tools": [TOOL], "stream": stream}
    answer = client.chat.completions.create(**given)
    if stream:
        chunks = list(answer)
        call = next(c.choices[0].delta.tool_calls for c in chunks if c.choices[0].delta.tool_calls)[0]
        reason = chunks[-1].choices[0].finish_reason
    else:
        call, reason = answer.choices[0].message.tool_calls[0], answer.choices[0].finish_reason
        assert answer.choices[0].message.content == "Let me look."
    assert (call.function.name, json.loads(call.function.arguments)) == ("find", {"place": "Romé"})
    assert call.id.startswith("call") and reason == "tool_calls"
    # The result of a call goes back as a message, and the call with its arguments as text.
    back = {"role": "assistant", "content": None, "tool_calls": [call.model_dump(exclude={"index"})]}
    result = {"role": "tool", "tool_call_id": call.id, "content": "42"}
    messages = [*says(text), back, result, {"role": "user", "content": "thanks"}]
    answer = client.chat.completions.create(model="parrot", messages=messages, tools=[TOOL], tool_choice="none")
    assert answer.choices[0].message.content == "thanks"


def test_stop_strings_end_the_text(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(model="parrot", messages=says("one END two"), stop=["zzz", " END"])
    assert (answer.choices[0].message.content, answer.choices[0].finish_reason) == ("one", "stop")
    answer = client.chat.completions.create(model="parrot", messages=says("one two three"), max_tokens=2)
    assert answer.choices[0].finish_reason == "length" and answer.usage.completion_tokens == 2


def test_scores_of_a_text_are_those_of_the_engine(server: Address, client: openai.OpenAI) -> None:
    tiny = server.models[1].runtime
    ids = tiny.encode_text("def f1(x):\n    return x")
    answer = client.completions.create(model="tiny", prompt=ids, echo=True, logprobs=3, max_tokens=1, temperature=0)
    found = answer.choices[0].logprobs
    tiny.restart()
    logits = tiny.feed(ids, every=True).astype(np.float64)
    chances = logits - np.log(np.exp(logits - logits.max(-1, keepdims=True)).sum(-1, keepdims=True))
    chances -= logits.max(-1, keepdims=True)
    assert found.token_logprobs[0] is None
    expected = [chances[index, token] for index, token in enumerate(ids[1:])]
    np.testing.assert_allclose(found.token_logprobs[1:-1], expected, atol=1e-4)
    assert found.token_logprobs[-1] == pytest.approx(chances[-1].max(), abs=1e-4)
    assert found.tokens[:-1] == [tiny.decode([token]) for token in ids]
    for row, position in zip(found.top_logprobs[1:], chances, strict=True):
        assert 1 <= len(row) <= 3 and max(row.values()) == pytest.approx(position.max(), abs=1e-4)
    assert answer.choices[0].text.startswith("def f1(x):\n    return x")


def test_several_prompts_are_continued_in_order(client: openai.OpenAI) -> None:
    answer = client.completions.create(model="parrot", prompt=["a", "b"], max_tokens=3, echo=True)
    assert [(choice.index, choice.text) for choice in answer.choices] == [(0, "axxx"), (1, "bxxx")]
    stream = client.completions.create(model="parrot", prompt=["a", "b"], max_tokens=2, stream=True)
    found = [(chunk.choices[0].index, chunk.choices[0].text) for chunk in stream]
    assert found == [(0, "x"), (0, "x"), (0, ""), (1, "x"), (1, "x"), (1, "")]


def test_errors_are_those_of_the_client(client: openai.OpenAI) -> None:
    ask = client.chat.completions.create
    with pytest.raises(openai.NotFoundError, match="did you mean 'parrot'") as missing:
        ask(model="parot", messages=says("x"))
    assert missing.value.code == "model_not_found"
    with pytest.raises(openai.BadRequestError, match="temperature: Input should be less than or equal to 2"):
        ask(model="parrot", messages=says("x"), temperature=7)
    with pytest.raises(openai.BadRequestError, match=r"messages\[0\]: no role 'usr'; did you mean 'user'"):
        ask(model="parrot", messages=[{"role": "usr", "content": "x"}])
    with pytest.raises(openai.BadRequestError, match="image_url"):
        ask(model="parrot", messages=[{"role": "user", "content": [{"type": "image_url"}]}])
    for stream in (False, True):
        with pytest.raises(openai.BadRequestError, match="takes at most 256") as long:
            ask(model="tiny", messages=says("x" * 2000), stream=stream)
        assert long.value.code == "context_length_exceeded"


def test_the_next_turn_reads_only_what_is_new(server: Address, client: openai.OpenAI) -> None:
    tiny = server.models[1]

    def ask(*texts: str, **values: Any) -> openai.types.chat.ChatCompletion:
        return client.chat.completions.create(
            model="tiny", messages=says(*texts), max_tokens=8, temperature=0, **values
        )

    client.completions.create(model="tiny", prompt="z", echo=True, logprobs=1, max_tokens=1)  # holds other tokens
    first = ask("def f1(x):").choices[0].message.content
    before = tiny.metrics.cached_tokens
    kept = ask("def f1(x):", first, "return").choices[0].message.content
    assert tiny.metrics.cached_tokens - before >= len(tiny.runtime.encode_text("def f1(x):"))
    ask("something else")
    assert ask("def f1(x):", first, "return").choices[0].message.content == kept
