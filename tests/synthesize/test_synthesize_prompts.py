"""Prompts: what is asked, once, under an id that depends on nothing else."""

import json
from pathlib import Path
from typing import Any

import pytest
from synthesize_cases import assistant, dialogue, dialogues, prompts_of, settings, user, write_lines

from edgerazor.data.bad_rows import BadRows
from edgerazor.data.dialogue import read_dialogue
from edgerazor.errors import DataError, RecipeError
from edgerazor.schemas.data import Source
from edgerazor.schemas.synthesis import build_synthesis_settings
from edgerazor.synthesize.drafts import Answer, Draft, Prompt, RefusalError, without_thought
from edgerazor.synthesize.prompts import PromptReader, prompt_messages

SYSTEM, SLOT = {"role": "system", "content": "Be short."}, {"role": "assistant"}
SHAPES: dict[str, tuple[Any, list[dict[str, str]]]] = {
    "text": ("Why?", [user("Why?"), SLOT]),
    "a question alone": ([user("Why?")], [user("Why?"), SLOT]),
    "with an answer": ([user("Why?"), assistant("So.")], [user("Why?"), SLOT]),
    "ends with a question": ([user("a"), assistant("b"), user("c")], [user("a"), SLOT, user("c"), SLOT]),
    "two answers in a row": ([user("a"), assistant("b"), assistant("c")], [user("a"), SLOT]),
    "keys without a value": ([{**user("a"), "name": None}, {**assistant("b"), "x": None}], [user("a"), SLOT]),
    "a system message": ([SYSTEM, user("a")], [SYSTEM, user("a"), SLOT]),
}
REFUSED = {
    "speaks before any user": [assistant("hello"), user("a")],
    "speaks before any": [SYSTEM, assistant("hello")],
    "calls a tool": [user("a"), {**assistant(""), "tool_calls": [{"name": "f"}]}, {"role": "tool", "content": "1"}],
    "no message is a user's": [SYSTEM],
}


def asked(row: Any, system_prompt: str | None = None) -> list[dict[str, Any]]:
    """The prompt of a row of text or messages."""
    row = [user(row)] if isinstance(row, str) else row
    dialogue = read_dialogue({"messages": row}, "messages", "file: row 1")
    return prompt_messages(dialogue.with_system_prompt(system_prompt))


@pytest.mark.parametrize("case", SHAPES)
def test_the_assistants_words_are_taken_out(case: str) -> None:
    row, expected = SHAPES[case]
    assert asked(row) == expected


@pytest.mark.parametrize("words", REFUSED)
def test_what_cannot_be_answered_is_refused(words: str) -> None:
    with pytest.raises(RefusalError, match=words):
        asked(REFUSED[words])


def test_a_system_prompt_is_for_dialogues_without_one() -> None:
    assert asked([user("a")], "Be kind.")[0] == {"role": "system", "content": "Be kind."}
    assert asked([SYSTEM, user("a")], "Be kind.")[0] == SYSTEM


def test_equal_prompts_are_asked_once(tmp_path: Path) -> None:
    rows = [
        *dialogues(4),
        {"messages": [*dialogue(0)["messages"][:1], assistant("another human")]},
        {"messages": [{"content": "question 0.0", "role": "user"}]},
    ]
    path = write_lines(tmp_path / "a.jsonl", rows)
    survey = PromptReader([Source(path=str(path))] * 2, settings(), BadRows()).survey(())
    assert (len(survey), survey.distinct, survey.duplicates) == (4, 4, 8)
    assert [prompt.where for prompt in prompts_of(path, settings())] == [f"{path}: row {row}" for row in (1, 2, 3, 4)]


def test_a_limit_counts_distinct_prompts_written_ones_included(tmp_path: Path) -> None:
    paths = [
        write_lines(tmp_path / f"{index}.jsonl", [dialogue(0), dialogue(1), dialogue(index + 2)]) for index in (0, 1)
    ]
    reader = PromptReader([Source(path=str(path)) for path in paths], settings(), BadRows())
    everything = list(reader.prompts(reader.survey(())))
    assert [prompt.messages[0]["content"][:12] for prompt in everything] == [f"question {n}.0" for n in range(4)]
    for limit in range(1, 6):
        survey = reader.survey({everything[0].id}, limit=limit)
        assert survey.distinct == min(limit, 4)
        assert list(reader.prompts(survey)) == everything[1:limit]


def test_the_id_depends_on_prompt_and_settings_alone(tmp_path: Path) -> None:
    a, b = write_lines(tmp_path / "a.jsonl", dialogues(2)), write_lines(tmp_path / "b.jsonl", dialogues(3)[::-1])
    ids = [prompt.id for prompt in prompts_of(a, settings())]
    assert {*ids} < {prompt.id for prompt in prompts_of(b, settings())}
    assert all(len(identifier) == 64 and int(identifier, 16) >= 0 for identifier in ids)
    changes = ({"seed": 1}, {"temperature": 0.0}, {"model": "other"}, {"system_prompt": "x"}, {"writer": "server"})
    everything = {prompt.id for change in ({}, *changes) for prompt in prompts_of(a, settings(**change))}
    assert len(everything) == 2 * (1 + len(changes))


def test_seeds_differ_by_turn_and_fit_every_server() -> None:
    prompt = Prompt("ab" * 32, (user("a"), SLOT), "x")
    seeds = [prompt.seed(turn) for turn in range(50)]
    assert len(set(seeds)) == 50 and all(0 <= seed < 1 << 31 for seed in seeds)
    assert seeds == [Prompt("ab" * 32, (), "elsewhere").seed(turn) for turn in range(50)]


def test_earlier_answers_are_the_context_of_later_turns() -> None:
    draft = Draft(Prompt("ab" * 32, (SYSTEM, user("a"), SLOT, user("b"), SLOT), "x"))
    first = draft.seed
    assert draft.context() == [SYSTEM, user("a")]
    draft.add(Answer("one", "stop"))
    assert draft.context() == [SYSTEM, user("a"), assistant("one"), user("b")]
    assert draft.seed != first and not draft.finished
    draft.add(Answer("two", "length"))
    assert draft.finished
    written = draft.written()
    assert written.messages == [SYSTEM, user("a"), assistant("one"), user("b"), assistant("two")]
    assert written.finish_reasons == ["stop", "length"]


def test_thoughts_are_dropped() -> None:
    assert without_thought(" plain <b> ") == " plain <b> "
    assert without_thought("<think>\nhm\n</think>\n\nyes") == "yes"
    assert without_thought("hm</think>yes") == "yes"
    with pytest.raises(RefusalError, match="still thinking when the tokens ran out"):
        without_thought("\n<think>\nhm")


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"messages": []}, "row 2, column 'messages': holds an empty list"),
        (
            {"messages": [{"role": "usr", "content": "x"}]},
            "column 'messages': message 1: no role 'usr'; did you mean 'user'",
        ),
    ],
)
def test_a_row_that_is_no_dialogue_is_named(row: Any, words: str, tmp_path: Path) -> None:
    path = write_lines(tmp_path / "a.jsonl", [dialogue(0), row])
    with pytest.raises(DataError, match=words):
        prompts_of(path, settings())


def test_text_from_other_columns_and_files(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "a.jsonl", [{"question": "Why?"}, {"question": "  "}, {"question": "How?"}])
    reader = PromptReader([Source(path=str(path), field="question")], settings(), BadRows())
    prompts = list(reader.prompts(reader.survey(())))
    assert [prompt.messages[0]["content"] for prompt in prompts] == ["Why?", "How?"]


def test_faulty_settings_are_all_named() -> None:
    with pytest.raises(RecipeError) as caught:
        build_synthesis_settings(writer="local", model="m", top_p=1.5, temperature=-1, sed=3)
    assert "synthesis has no 'sed'; did you mean 'seed'?" in str(caught.value)
    assert "top_p: " in str(caught.value) and "temperature: " in str(caught.value)
    assert json.loads(settings().model_dump_json())["top_k"] == 20


def test_faulty_rows_are_named_together_or_left_out(tmp_path: Path) -> None:
    rows = [dialogue(0), {"messages": []}, {"messages": [assistant("hello")]}, dialogue(1), 7]
    path = write_lines(tmp_path / "a.jsonl", rows)
    with pytest.raises(DataError) as caught:
        PromptReader([Source(path=str(path))], settings(), BadRows(hint="--skip-refused")).survey(())
    lines = str(caught.value).splitlines()
    assert sorted(line.split(": row ")[1][0] for line in lines[:-1]) == ["2", "3", "5"]
    assert lines[-1] == "3 rows cannot be used; --skip-refused leaves such rows out"
    reader = PromptReader([Source(path=str(path))], settings(), bad := BadRows("skip"))
    assert [prompt.where for prompt in reader.prompts(reader.survey(()))] == [f"{path}: row {row}" for row in (1, 4)]
    assert bad.count == 3


def test_keys_that_the_template_reads_are_understood(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "a.jsonl", [{"messages": [{**user("a"), "mood": "sad"}]}])
    with pytest.raises(DataError, match="the key 'mood' is not understood"):
        PromptReader([Source(path=str(path))], settings(), BadRows()).survey(())
    reader = PromptReader([Source(path=str(path))], settings(), BadRows(), known=("mood",))
    (prompt,) = reader.prompts(reader.survey(()))
    assert prompt.messages[0] == {**user("a"), "mood": "sad"}
