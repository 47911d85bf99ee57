"""What stands in a row: calls, tools, switches, JSON in a column, keys that are not understood."""

import json
from pathlib import Path
from typing import Any

import datasets
import pytest
from families import FAMILIES
from small_tokenizers import build, learned_runs

from edgerazor.data import load_data
from edgerazor.errors import DataError
from edgerazor.schemas.data import DataSection

ASKED = {"role": "user", "content": "Where?"}
RESULT = {"role": "tool", "content": "12", "tool_call_id": "call00000"}
ANSWER = {"role": "assistant", "content": "There."}
TOOL = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object", "properties": {}}}}
CALLED = {
    "Qwen2.5": '<tool_call>\n{"name": "weather", "arguments": {"city": "Paris"}}\n</tool_call><|im_end|>',
    "Qwen3": '<tool_call>\n{"name": "weather", "arguments": {"city": "Paris"}}\n</tool_call><|im_end|>',
    "Llama 3.1": '{"name": "weather", "parameters": {"city": "Paris"}}<|eot_id|>',
}


def call(arguments: Any, name: str = "weather") -> dict[str, Any]:
    return {"id": "call00000", "type": "function", "function": {"name": name, "arguments": arguments}}


def tokenizer_of(family: str) -> Any:
    chosen = FAMILIES[family]
    return build("byte-level", chosen.special, chosen.bos, chosen.template)


def load(path: str | Path, family: str = "Qwen2.5", **source: Any) -> tuple[list[str], list[list[str]]]:
    """Text of each row, and what it teaches."""
    tokenizer = tokenizer_of(family)
    section = {"sources": [{"path": str(path), **source}], "packing": False, "sequence_length": 4096}
    rows = load_data(DataSection(**section), tokenizer).train
    texts = [tokenizer.decode(row["input_ids"]) for row in rows]
    return texts, [learned_runs(tokenizer, row["input_ids"], row["labels"]) for row in rows]


@pytest.mark.parametrize("content", [{"content": None}, {}, {"content": ""}], ids=["null", "missing", "empty"])
@pytest.mark.parametrize("family", CALLED)
@pytest.mark.parametrize("form", ["object", "JSON", "calls as JSON", "function_call", "without function"])
def test_a_call_is_learned_with_its_end(write_lines, family: str, content: dict[str, Any], form: str) -> None:
    calls = [call({"city": "Paris"})]
    said: dict[str, dict[str, Any]] = {
        "object": {"tool_calls": calls},
        "JSON": {"tool_calls": [call('{"city": "Paris"}')]},
        "calls as JSON": {"tool_calls": json.dumps(calls)},
        "function_call": {"function_call": {"name": "weather", "arguments": '{"city": "Paris"}'}},
        "without function": {"tool_calls": [{"name": "weather", "arguments": {"city": "Paris"}}]},
    }
    turn = {"role": "assistant", **content, **said[form]}
    _, learned = load(write_lines([{"messages": [ASKED, turn, RESULT, ANSWER]}]), family)
    end = FAMILIES[family].special[0]
    assert learned == [[CALLED[family], f"There.{end}"]]


@pytest.mark.parametrize("tools", [[TOOL], json.dumps([TOOL]), [json.dumps(TOOL)]], ids=["list", "JSON", "JSON each"])
def test_tools_reach_the_template(write_lines, tools: Any) -> None:
    (text,), _ = load(write_lines([{"messages": [ASKED, ANSWER], "tools": tools}]))
    assert f"<tools>\n{json.dumps(TOOL)}\n</tools>" in text


def test_no_tools_are_none(write_lines) -> None:
    (first, second), _ = load(write_lines([{"messages": [ASKED, ANSWER], "tools": tools} for tools in ([], None)]))
    assert first == second and "tools" not in first


def test_messages_as_json_are_read(write_lines, tmp_path: Path) -> None:
    plain, text = [ASKED, ANSWER], json.dumps([ASKED, ANSWER])
    datasets.Dataset.from_list([{"messages": text, "dialog": text}]).to_parquet(str(tmp_path / "a.parquet"))
    expected = load(write_lines([{"messages": plain}]))
    assert load(write_lines([{"messages": text}], "b.jsonl")) == expected
    assert load(tmp_path / "a.parquet") == expected
    assert load(tmp_path / "a.parquet", field="dialog") == expected
    with pytest.raises(DataError, match="row 1, column 'messages': holds text; expected a list of messages"):
        load(write_lines([{"messages": "[no JSON"}], "c.jsonl"))


OFF = [{"weight": 0}, {"weight": 0.0}, {"train": False}, {"training": False}, {"loss": "false"}]


@pytest.mark.parametrize("switch", OFF, ids=str)
@pytest.mark.parametrize("marked", [False, True], ids=["found", "marked by the template"])
def test_what_is_switched_off_is_not_learned(write_lines, switch: dict[str, Any], marked: bool) -> None:
    template = FAMILIES["ChatML"].template
    if marked:
        template = template.replace("message['content'] + '<|im_end|>'", "CONTENT").replace("+ CONTENT", "}}{{ CONTENT")
        template = template.replace(
            "CONTENT",
            "'' }}{% if message['role'] == 'assistant' %}{% generation %}{{ message['content'] + '<|im_end|>' }}"
            "{% endgeneration %}{% else %}{{ message['content'] + '<|im_end|>' }}{% endif %}{{ ''",
        )
    tokenizer = build("byte-level", FAMILIES["ChatML"].special, None, template)
    others = [ASKED, {**ANSWER, **switch}, ASKED, {"role": "assistant", "content": "Here.", "weight": 1}]
    rows = [{"messages": others, "train": None}, {"messages": [ASKED, ANSWER], **switch}]
    section = DataSection(sources=write_lines(rows), packing=False)
    data = load_data(section, tokenizer)
    (row,) = data.train
    assert learned_runs(tokenizer, row["input_ids"], row["labels"]) == ["Here.<|im_end|>"]
    assert "There." in tokenizer.decode(row["input_ids"]) and data.usage.unused == 1


def test_a_text_that_is_switched_off_is_not_learned(write_lines) -> None:
    rows = [{"text": "hello hello", "weight": 1}, {"text": "world world", "weight": 0}]
    assert load(write_lines(rows))[1] == [[" hello<|im_end|>"]]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"messages": [ASKED, {**ANSWER, "weight": 0.5}]}, "message 2: 'weight' is 0.5; a turn is learned"),
        ({"messages": [ASKED, {**ANSWER, "wieght": 0}]}, "message 2: the key 'wieght' is not understood; did you mean"),
        ({"messages": [ASKED, {**ANSWER, "mask": 1}]}, "message 2: the key 'mask' is not understood"),
        ({"messages": [ASKED, ANSWER], "loss_mask": 1}, "row 1: the key 'loss_mask' is not understood"),
        ({"messages": [ASKED, ANSWER], "weight": "much"}, "row 1: 'weight' is 'much'"),
        ({"text": "hello", "weight": 0.5}, "row 1: 'weight' is 0.5"),
        ({"messages": [ASKED, ANSWER], "tools": "no JSON"}, "row 1, column 'tools': holds text"),
        ({"messages": [ASKED, {"role": "assistant", "content": None}]}, "message 2: has no 'content'"),
        ({"messages": [ASKED, {"role": "assistant", "tool_calls": ["x"]}]}, "message 2: 'tool_calls' holds list"),
        ({"messages": [ASKED, {"role": "assistant", "tool_calls": [{"id": "x"}]}]}, "call 1: names no function"),
    ],
)
def test_what_is_not_understood_is_named(write_lines, row: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        load(write_lines([row]))


def test_keys_may_be_ignored_or_belong_to_the_template(write_lines) -> None:
    path = write_lines([{"messages": [{**ASKED, "language": "en"}, {**ANSWER, "weight": 0.3}], "loss": 2.5}])
    assert load(path, ignore=["language", "weight", "loss"])[1] == [["There.<|im_end|>"]]
    tokenizer = build(
        "byte-level", ("<|im_end|>",), None, "{% for m in messages %}{{ m.mood }}{{ m.content }}{% endfor %}"
    )
    section = DataSection(sources=write_lines([{"messages": [{**ASKED, "mood": "calm: "}, ANSWER]}]))
    (row,) = load_data(section, tokenizer).train
    assert tokenizer.decode(row["input_ids"]).startswith("calm: Where?")


@pytest.mark.parametrize("saved", [False, True], ids=["Parquet", "saved"])
def test_calls_have_the_arguments_that_were_there(tmp_path: Path, saved: bool) -> None:
    city, unit = call({"city": "Paris"}), call({"unit": "C"}, "thermometer")
    tools = [
        TOOL,
        {"type": "function", "function": {"name": "x", "parameters": {"properties": {"q": {"type": "string"}}}}},
    ]
    turn = {"role": "assistant", "content": "", "tool_calls": [city]}
    rows = [{"messages": [ASKED, turn, RESULT, {**turn, "tool_calls": [unit]}], "tools": tools}]
    path = tmp_path / "a.parquet"
    data = datasets.Dataset.from_list(rows)
    data.save_to_disk(str(tmp_path / "saved")) if saved else data.to_parquet(str(path))
    (text,), (learned,) = load(tmp_path / "saved" if saved else path)
    assert "null" not in text
    assert learned == [
        '<tool_call>\n{"name": "weather", "arguments": {"city": "Paris"}}\n</tool_call><|im_end|>',
        '<tool_call>\n{"name": "thermometer", "arguments": {"unit": "C"}}\n</tool_call><|im_end|>',
    ]


@pytest.mark.parametrize("answer", ["    return x", "\treturn", "\n\nhello", " \n x ", "   "])
def test_all_of_an_answer_is_learned(write_lines, answer: str) -> None:
    path = write_lines([{"messages": [ASKED, {"role": "assistant", "content": answer}]}])
    assert load(path, "ChatML")[1] == [[f"{answer}<|im_end|>"]]
