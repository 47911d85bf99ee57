"""The OpenAI protocol against a server that behaves, one that does not, and one that comes back."""

import json
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from synthesize_cases import (
    ReplyError,
    ScriptedServer,
    assistant,
    completion,
    dialogue,
    dialogues,
    echo,
    prompts_of,
    settings,
    user,
    write_lines,
)

from edgerazor.errors import SynthesisError
from edgerazor.schemas.synthesis import SynthesisSettings
from edgerazor.synthesize.connection import ServerAddress
from edgerazor.synthesize.drafts import FinishedDialogue, Prompt, Refusal
from edgerazor.synthesize.server import ServerWriter
from edgerazor.synthesize.store import RowStore

pytestmark = pytest.mark.slow

SERVER = settings(writer="server", model="tiny")
Ask = Callable[..., Any]


@pytest.fixture
def prompts(tmp_path: Path) -> list[Prompt]:
    """Eight dialogues of one to three turns."""
    return prompts_of(write_lines(tmp_path / "in.jsonl", dialogues(8)), SERVER)


def ask(
    server: ScriptedServer,
    prompts: list[Prompt],
    chosen: SynthesisSettings = SERVER,
    concurrency: int = 1,
    **address: Any,
) -> list[FinishedDialogue | Refusal]:
    """All outcomes."""
    with server.running():
        where = ServerAddress(**{"base_url": server.url, "retries": 2, "timeout": 20.0, **address})
        return list(ServerWriter(where, chosen, concurrency=concurrency).write(prompts))


def fault(script: Callable[[Any], Any], prompts: list[Prompt], **address: Any) -> str:
    """The message of the error that ends the writing."""
    with pytest.raises(SynthesisError) as caught:
        ask(ScriptedServer(script), prompts, **address)
    return str(caught.value)


def test_what_is_asked(prompts: list[Prompt]) -> None:
    server = ScriptedServer(echo)
    (outcome,) = ask(server, prompts[1:2], api_key="secret")
    first, second = server.bodies
    assert first == {
        "model": "tiny",
        "messages": [user("question 1.0 and more")],
        "max_tokens": 12,
        "temperature": 0.7,
        "top_p": 0.95,
        "top_k": 20,
        "seed": prompts[1].seed(0),
        "min_p": 0.0,
        "repetition_penalty": 1.0,
        "repeat_penalty": 1.0,
        "chat_template_kwargs": {"enable_thinking": False},
    }
    answer = f"1 question 1.0 and more {prompts[1].seed(0)}"
    assert second["messages"] == [*first["messages"], assistant(answer), user("question 1.1 and more")]
    assert isinstance(outcome, FinishedDialogue) and outcome.messages[:3] == second["messages"]
    assert outcome.finish_reasons == ["stop", "stop"]
    assert server.headers["Authorization"] == "Bearer secret"


def test_tools_are_asked_with_and_written(tmp_path: Path) -> None:
    tool = {"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}
    rows = [{"messages": [user("Why?"), {**assistant("So."), "weight": 0}, user("And?")], "tools": json.dumps([tool])}]
    (prompt,) = prompts_of(write_lines(tmp_path / "a.jsonl", rows), settings())
    server = ScriptedServer(echo)
    (outcome,) = ask(server, [prompt])
    assert isinstance(outcome, FinishedDialogue)
    assert [body["tools"] for body in server.bodies] == [[tool], [tool]]
    assert all("weight" not in message for body in server.bodies for message in body["messages"])
    assert [message.get("weight") for message in outcome.messages] == [None, 0, None, None]
    with RowStore(tmp_path / "out.jsonl", settings()) as store:
        store.append(outcome)
    assert json.loads((tmp_path / "out.jsonl").read_text())["tools"] == [tool]


def test_only_what_the_standard_has(prompts: list[Prompt]) -> None:
    server = ScriptedServer(echo)
    ask(server, prompts[:1], settings(writer="server", model="tiny", standard_only=True))
    assert set(server.bodies[0]) == {"model", "messages", "max_tokens", "temperature", "top_p", "seed"}
    assert "Authorization" not in server.headers


def test_requests_run_side_by_side_and_change_nothing(prompts: list[Prompt]) -> None:
    alone = ScriptedServer(echo)
    expected = {outcome.prompt.id: outcome for outcome in ask(alone, prompts)}
    together = threading.Barrier(3)

    def meet(body: dict[str, Any]) -> Any:
        if len(server.bodies) <= 3:
            together.wait(20)  # nobody is answered before three have asked
        return echo(body)

    server = ScriptedServer(meet)
    assert {outcome.prompt.id: outcome for outcome in ask(server, prompts, concurrency=3)} == expected
    assert alone.most == 1 and server.most == 3


def test_a_server_that_is_busy_or_hangs_up_is_asked_again(prompts: list[Prompt]) -> None:
    troubles: dict[int, Exception] = {
        1: ReplyError(503, '{"error": {"message": "Loading model"}}'),
        2: ConnectionError(),
        4: ReplyError(429),
        5: ReplyError(200, '{"choices"', Content_Length="999"),
    }

    def script(body: dict[str, Any]) -> Any:
        if (trouble := troubles.pop(len(server.bodies), None)) is not None:
            raise trouble
        return echo(body)

    server, lines = ScriptedServer(script), list[str]()
    outcomes = ask(server, prompts[:2], notify=lines.append)
    assert len(outcomes) == 2 and not troubles and len(server.bodies) == 7
    assert f"{server.url}/chat/completions: the server answered 503 Service Unavailable: Loading model" in lines[0]
    assert "; trying again in " in lines[0] and lines[0].endswith(" (1 of 2)") and lines[1].endswith(" (2 of 2)")
    assert "the server answered 429 Too Many Requests: without a word" in lines[2] and lines[2].endswith(" (1 of 2)")
    assert "the answer broke off 989 bytes before its end; trying again" in lines[3]


def test_a_server_may_say_how_long_to_wait(prompts: list[Prompt]) -> None:
    def script(body: dict[str, Any]) -> Any:
        if len(server.bodies) == 1:
            raise ReplyError(429, "", Retry_After="2")
        return echo(body)

    server, lines = ScriptedServer(script), list[str]()
    began = time.monotonic()
    ask(server, prompts[:1], notify=lines.append)
    assert time.monotonic() - began >= 2 and "trying again in 2.0 s" in lines[0]


def test_a_server_that_stays_away_is_an_error(prompts: list[Prompt]) -> None:
    assert "Connection refused (after 2 attempts)" in absent(prompts)

    def broken(body: dict[str, Any]) -> Any:
        raise ReplyError(500, "Internal Server Error")

    assert "500 Internal Server Error: Internal Server Error (after 1 attempts)" in fault(
        broken, prompts[:1], retries=0
    )


def absent(prompts: list[Prompt]) -> str:
    """The message where nobody listens."""
    server = ScriptedServer(echo)
    with server.running():
        pass
    writer = ServerWriter(ServerAddress(server.url, retries=1), SERVER, concurrency=2)
    with pytest.raises(SynthesisError) as caught:
        list(writer.write(prompts))
    return str(caught.value)


ERRORS = {
    "wrong key": (401, '{"error": {"message": "Invalid API key"}}', "401 Unauthorized: Invalid API key"),
    "wrong model": (
        404,
        '{"message": "The model `x` does not exist"}',
        "The model `x` does not exist; does the address",
    ),
    "moved": (307, "", "307 Temporary Redirect: without a word"),
    "a page": (403, "<html>\n<p>no</p>" + "x" * 999, "403 Forbidden: <html> <p>no</p>xxx"),
}


@pytest.mark.parametrize("case", ERRORS)
def test_an_error_of_the_server_is_said_in_its_words(case: str, prompts: list[Prompt]) -> None:
    status, text, expected = ERRORS[case]

    def script(body: dict[str, Any]) -> Any:
        raise ReplyError(status, text)

    message = fault(script, prompts[:2])
    assert expected in message and len(message) < 600


@pytest.mark.parametrize("status", [400, 422])
def test_what_the_server_refuses_concerns_one_dialogue(status: int, prompts: list[Prompt]) -> None:
    def script(body: dict[str, Any]) -> Any:
        if "question 1" in body["messages"][-1]["content"]:
            raise ReplyError(status, '{"detail": [{"msg": "maximum context length is 8"}]}')
        return echo(body)

    outcomes = ask(ScriptedServer(script), prompts[:3])
    (refusal,) = [outcome for outcome in outcomes if isinstance(outcome, Refusal)]
    assert refusal.prompt == prompts[1] and '[{"msg": "maximum context length is 8"}]' in refusal.reason


BROKEN: dict[str, tuple[Any, str]] = {
    "no choices": ({"choices": []}, "holds no choices[0].message.content, which the API promises: {'choices': []}"),
    "a list": ([], "the API promises: []"),
    "a word": ("hello", "the API promises: hello"),
    "no message": ({"choices": [{"text": "x"}]}, "the API promises"),
    "no content": ({"choices": [{"message": {}}]}, "the API promises"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_an_answer_that_the_api_does_not_promise_is_shown(case: str, prompts: list[Prompt]) -> None:
    answer, expected = BROKEN[case]
    assert expected in fault(lambda body: answer, prompts[:1])


def test_an_answer_that_is_no_json_is_shown(prompts: list[Prompt]) -> None:
    def script(body: dict[str, Any]) -> Any:
        raise ReplyError(200, "data: stream")

    assert "/chat/completions: the answer is no JSON: data: stream" in fault(script, prompts[:1])


@pytest.mark.parametrize(("text", "reason"), [(None, "tool_calls"), (None, "content_filter"), (["x"], "stop")])
def test_an_answer_without_text_is_a_refusal(text: Any, reason: str, prompts: list[Prompt]) -> None:
    (outcome,) = ask(ScriptedServer(lambda body: completion(text, reason)), prompts[:1])
    assert isinstance(outcome, Refusal) and f"without text (finish_reason '{reason}')" in outcome.reason


def test_half_characters_and_thoughts_do_not_get_into_the_file(prompts: list[Prompt]) -> None:
    (outcome,) = ask(ScriptedServer(lambda body: completion("<think>\nx</think>\n\na\ud83d b", "length")), prompts[:1])
    assert isinstance(outcome, FinishedDialogue) and outcome.finish_reasons == ["length"]
    assert outcome.messages[-1]["content"] == "a? b"


def test_stop_does_not_wait_for_an_answer(prompts: list[Prompt]) -> None:
    asked, release = threading.Event(), threading.Event()

    def script(body: dict[str, Any]) -> Any:
        if len(server.bodies) > 2:
            asked.set()
            release.wait(60)
        return echo(body)

    server = ScriptedServer(script)
    with server.running():
        writer = ServerWriter(ServerAddress(server.url, timeout=60), SERVER, concurrency=2)

        def stop() -> None:
            asked.wait(60)
            writer.stop()

        stopper = threading.Thread(target=stop)
        stopper.start()
        outcomes = list(writer.write(prompts))  # hangs if a request is waited for
        stopper.join()
        release.set()
    assert len(outcomes) < len(prompts)
    assert all(isinstance(outcome, FinishedDialogue) for outcome in outcomes)


def test_prompts_are_read_as_they_are_needed(tmp_path: Path) -> None:
    prompts = prompts_of(write_lines(tmp_path / "in.jsonl", [dialogue(number) for number in range(30)]), SERVER)
    taken: list[Prompt] = []

    def follow() -> Any:
        for prompt in prompts:
            taken.append(prompt)
            yield prompt

    with (server := ScriptedServer(echo)).running():
        outcomes = ServerWriter(ServerAddress(server.url), SERVER, concurrency=4).write(follow())
        next(outcomes)
        assert len(taken) == 4
        outcomes.close()  # type: ignore[attr-defined]
