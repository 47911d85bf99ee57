"""`edgerazor synthesize` from outside: what it writes, says and exits with."""

import signal
import threading
from pathlib import Path
from typing import Any

import pytest
from synthesize_cases import (
    ReplyError,
    ScriptedServer,
    dialogue,
    dialogues,
    echo,
    questions,
    read_lines,
    save_teacher,
    user,
    write_lines,
)
from transformers import AutoTokenizer

from edgerazor.data import load_data
from edgerazor.schemas.data import DataSection
from tests.commands import fail, invoke, succeed
from tests.limits import quota


@pytest.fixture
def human(tmp_path: Path) -> Path:
    """Ten dialogues."""
    return write_lines(tmp_path / "human.jsonl", dialogues(10))


def test_a_local_teacher_writes_a_source_of_a_recipe(human: Path, tmp_path: Path) -> None:
    teacher, out = save_teacher(tmp_path / "teacher"), tmp_path / "written.jsonl"
    command = ["synthesize", human, "--output", out, "--model", teacher, "--max-new-tokens", 6]
    first = succeed(*command, "--limit", 4, "--batch-size", 3)
    assert first.startswith(f"wrote 4 dialogues to {out} in ") and "it holds 4 of 4" in first
    begun = out.read_bytes()
    second = succeed(*command)
    assert second.startswith(f"wrote 6 dialogues to {out} in ") and "  4 were written before\n" in second
    assert out.read_bytes().startswith(begun)
    rows = read_lines(out)
    assert sorted(map(questions, rows)) == sorted(map(questions, dialogues(10)))
    cut = sum(row["finish_reasons"].count("length") for row in rows[4:])
    assert f"  {cut} answers were cut" in second
    section = DataSection.model_validate({"sources": [str(out), str(human)], "sequence_length": 128})
    assert load_data(section, AutoTokenizer.from_pretrained(teacher)).usage.documents == (10, 10)
    assert "line 1 was written with temperature 0.7, now it is 0.0" in fail(*command, "--temperature", 0)


def test_a_server_writes(human: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGERAZOR_API_KEY", "one")
    monkeypatch.setenv("MY_KEY", "two")
    out = tmp_path / "written.jsonl"
    with (server := ScriptedServer(echo)).running():
        command = ["synthesize", human, human, "--output", out, "--server", server.url, "--system-prompt", "Be kind."]
        printed = succeed(*command, "--concurrency", 3, "--limit", 5)
        assert "it holds 5 of 5" in printed and "repeat" not in printed
        assert server.headers["Authorization"] == "Bearer one"
        assert "  10 rows repeat an earlier prompt" in succeed(*command, "--api-key-variable", "MY_KEY")
        assert server.headers["Authorization"] == "Bearer two"
        rows, asked = read_lines(out), len(server.bodies)
        assert succeed(*command).startswith("wrote 0 dialogues")
    assert len(rows) == len({row["id"] for row in rows}) == 10
    assert all(row["messages"][0] == {"role": "system", "content": "Be kind."} for row in rows)
    assert asked == sum(len(row["finish_reasons"]) for row in rows)
    assert rows[0]["settings"]["model"] == "tiny"
    error = fail(*command, "--api-key-variable", "NO_KEY")
    assert error == "--api-key-variable: the environment has no variable NO_KEY, or it is empty\n"


def test_refused_dialogues_stop_the_run_unless_they_may_be_left_out(human: Path, tmp_path: Path) -> None:
    def script(body: dict[str, Any]) -> Any:
        if "question 3" in body["messages"][-1]["content"]:
            raise ReplyError(400, '{"error": "too long"}')
        return echo(body)

    calls = {"messages": [user("a"), {"role": "assistant", "content": "", "tool_calls": [{"name": "f"}]}]}
    tools = write_lines(tmp_path / "tools.jsonl", [calls])
    out = tmp_path / "written.jsonl"
    with (server := ScriptedServer(script)).running():
        command = ["synthesize", human, "--output", out, "--server", server.url, "--concurrency", 1]
        error = fail(*command)
        assert error.startswith(f"{human}: row 4: ") and "the server answered 400 Bad Request: too long" in error
        assert error.endswith(f"{out}: 3 of 10 dialogues are written; the same command goes on\n")
        assert "row 1: the assistant calls a tool" in fail(*command, tools)
        result = invoke(*command, tools, "--skip-refused")
        assert result.exit_code == 0 and "wrote 6 dialogues" in result.stdout and "holds 9 of 10" in result.stdout
        assert f"left out: {tools}: row 1: the assistant calls a tool" in result.stderr
        assert f"left out: {human}: row 4: " in result.stderr
        alone = ["synthesize", tools, "--output", tmp_path / "a.jsonl", "--server", server.url, "--skip-refused"]
        assert fail(*alone).startswith(f"no dialogue could be answered; the first is {tools}: row 1: ")
    assert not (tmp_path / "a.jsonl").exists()


def test_a_full_disk_loses_nothing_that_was_finished(human: Path, tmp_path: Path) -> None:
    out = tmp_path / "written.jsonl"
    with (server := ScriptedServer(echo)).running():
        command = ["synthesize", human, "--output", out, "--server", server.url, "--concurrency", 1]
        with quota(3000):
            error = fail(*command)
        kept = out.read_bytes()
        assert kept.endswith(b"}\n") and 2000 < len(kept) <= 3000
        count = kept.count(b"\n")
        assert f"{out}: cannot be written: File too large\n{out}: {count} of 10 dialogues are written" in error
        assert f"{count} were written before" in succeed(*command)
    assert out.read_bytes().startswith(kept) and len(read_lines(out)) == 10


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_keeps_what_is_finished_and_is_exit_code_130(number: int, human: Path, tmp_path: Path) -> None:
    hanging, release = threading.Event(), threading.Event()

    def script(body: dict[str, Any]) -> Any:
        if len(server.bodies) > 8:
            hanging.set()
            release.wait(60)
        return echo(body)

    def interrupt() -> None:
        """The system may give a signal to any thread; this one leaves the main thread, which waits, asleep."""
        assert hanging.wait(60)
        signal.pthread_kill(threading.get_ident(), number)

    out, before = tmp_path / "written.jsonl", signal.getsignal(number)
    with (server := ScriptedServer(script)).running():
        command = ["synthesize", human, "--output", out, "--server", server.url, "--concurrency", 2]
        threading.Thread(target=interrupt, daemon=True).start()
        said = fail(*command, code=130)
        count = len(read_lines(out))
        assert said == f"stopped; {out} holds {count} of 10 dialogues. The same command goes on from there.\n"
        assert 2 <= count < 8 and signal.getsignal(number) == before
        release.set()
        assert f"{count} were written before" in succeed(*command)
    assert sorted(map(questions, read_lines(out))) == sorted(map(questions, dialogues(10)))


def test_options_that_do_not_fit_are_errors(human: Path, tmp_path: Path) -> None:
    out = tmp_path / "written.jsonl"
    command = ["synthesize", human, "--output", out]
    assert fail(*command).startswith("who is the teacher? --model FOLDER")
    assert "--concurrency and --standard-only are for --server" in fail(*command, "--model", "x", "--concurrency", 2)
    assert "--batch-size is for a model on this machine" in fail(*command, "--server", "http://x/v1", "--batch-size", 2)
    assert "top_p: " in fail(*command, "--model", "x", "--top-p", 0)
    assert "is no address of a server; expected http://HOST:PORT/v1" in fail(*command, "--server", "localhost:8000")
    assert "absent.jsonl: no such file" in fail("synthesize", "absent.jsonl", "--output", out, "--model", "x")
    assert "belongs to the source" in fail("synthesize", human, "--output", human, "--model", "x")
    assert "belongs to the source" in fail("synthesize", tmp_path, "--output", out, "--model", "x")
    assert "must end in .jsonl" in fail("synthesize", human, "--output", tmp_path / "out.json", "--model", "x")
    assert "is a folder" in fail("synthesize", human, "--output", tmp_path, "--model", "x")
    assert list(tmp_path.iterdir()) == [human]


def test_a_model_that_is_not_there_leaves_no_file(human: Path, tmp_path: Path) -> None:
    error = fail("synthesize", human, "--output", tmp_path / "a.jsonl", "--model", tmp_path / "absent")
    assert error.startswith(f"{tmp_path / 'absent'}: no usable ")
    assert not (tmp_path / "a.jsonl").exists()


def test_text_rows_are_questions(tmp_path: Path) -> None:
    source = write_lines(tmp_path / "text.jsonl", [{"q": "Why?"}, {"q": "How?"}])
    with (server := ScriptedServer(echo)).running():
        succeed(
            "synthesize", source, "--field", "q", "--output", tmp_path / "a.jsonl", "--server", server.url, "--top-k", 0
        )
    assert sorted(row["messages"][0]["content"] for row in read_lines(tmp_path / "a.jsonl")) == ["How?", "Why?"]
    assert questions(dialogue(0)) == ["question 0.0"]


def test_keys_of_the_teachers_own_template_reach_it(tmp_path: Path) -> None:
    """As in training; another teacher's template does not know them."""
    moody = save_teacher(tmp_path / "moody", template="{% for m in messages %}{{ m.mood }}{{ m.content }}{% endfor %}")
    plain = save_teacher(tmp_path / "plain")
    source = write_lines(tmp_path / "a.jsonl", [{"messages": [{**user("Why?"), "mood": "sad"}]}])
    command = ["synthesize", source, "--output", tmp_path / "out.jsonl", "--max-new-tokens", 4, "--model"]
    assert "the key 'mood' is not understood" in fail(*command, plain)
    succeed(*command, moody)
    assert read_lines(tmp_path / "out.jsonl")[0]["messages"][0] == {**user("Why?"), "mood": "sad"}
