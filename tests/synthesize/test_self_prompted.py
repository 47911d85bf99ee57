"""`edgerazor synthesize --self-prompted`: the same rows, whatever batch writes them and however often it is killed."""

import contextlib
import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from synthesize_cases import compute_in_float64, read_lines, save_talker, save_teacher, user, write_lines
from transformers import AutoTokenizer

from edgerazor.data import load_data
from edgerazor.schemas.data import DataSection
from edgerazor.schemas.synthesis import SelfPrompting
from tests.commands import fail, invoke, succeed
from tests.forked_commands import end, start

pytestmark = pytest.mark.slow

COUNT = 8
LIMITS = ("--set", "question_tokens=24", "--set", "min_question=3", "--set", "max_similarity=0.4")


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "talker"
    folder.mkdir()
    return save_talker(folder)


@pytest.fixture(scope="module")
def talker(saved: Path) -> Iterator[str]:
    """The model by a name that is the same in every run of the tests: candidates depend on it."""
    with contextlib.chdir(saved.parent):
        yield saved.name


def arguments(talker: str, output: Path, *more: object, count: int = COUNT) -> list[object]:
    """One text at a time, which is written to the last bit alike in every run."""
    command: list[object] = ["synthesize", "--self-prompted", count, "--output", output, "--model", talker]
    command += ["--max-new-tokens", 24, "--batch-size", 1, "--max-attempts", 2000]
    return [*command, "--temperature", 1.3, "--top-k", 0, "--top-p", 1, *LIMITS, *more]


@pytest.fixture(scope="module")
def whole(talker: str, tmp_path_factory: pytest.TempPathFactory) -> tuple[bytes, bytes]:
    """What an undisturbed run writes: rows, and what was refused."""
    output = tmp_path_factory.mktemp("whole") / "a.jsonl"
    printed = succeed(*arguments(talker, output))
    rows, refused = read_lines(output), read_lines(output.with_name("a.jsonl.refused"))
    assert f"it holds {COUNT} of {COUNT}\n  {len(rows) + len(refused)} were tried; refused were " in printed
    assert all(f"{sum(row['refused'] == kind for row in refused)} {kind}" in printed for kind in kinds(refused))
    return output.read_bytes(), output.with_name("a.jsonl.refused").read_bytes()


def kinds(refused: list[dict[str, Any]]) -> set[str]:
    return {row["refused"] for row in refused}


def test_rows_say_how_they_were_made_and_train(talker: str, whole: tuple[bytes, bytes], tmp_path: Path) -> None:
    rows, refused = ([json.loads(line) for line in content.splitlines()] for content in whole)
    assert len(rows) == COUNT and "unfinished" in kinds(refused)
    assert sorted(row["index"] for row in [*rows, *refused]) == [*range(len(rows) + len(refused))]
    assert [row["index"] for row in rows] == sorted(row["index"] for row in rows)
    for row in rows:
        assert [message["role"] for message in row["messages"]] == ["user", "assistant"]
        assert all(message["content"].strip() for message in row["messages"]) and row["finish_reasons"] == ["stop"]
        section = row["settings"]["self_prompted"]
        assert SelfPrompting.model_validate(section).question_tokens == 24 and len(section["model_digest"]) == 32
    (tmp_path / "rows.jsonl").write_bytes(whole[0])
    (tmp_path / "rows.jsonl.refused").write_bytes(whole[1])
    section = DataSection.model_validate({"sources": [str(tmp_path)], "sequence_length": 128})
    assert load_data(section, AutoTokenizer.from_pretrained(talker)).usage.documents == (COUNT,)


@pytest.mark.slow
def test_batches_of_any_size_write_the_same(talker: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compute_in_float64(monkeypatch)
    written = []
    for size in (1, 5, 8):
        output = tmp_path / f"{size}.jsonl"
        succeed(*arguments(talker, output, "--batch-size", size))
        written.append((output.read_bytes(), output.with_name(f"{size}.jsonl.refused").read_bytes()))
    assert written[0] == written[1] == written[2] and len(read_lines(output)) == COUNT
    rows, refused = written[0]
    output, beside = tmp_path / "cut.jsonl", tmp_path / "cut.jsonl.refused"
    output.write_bytes(rows[: len(rows) // 2])
    beside.write_bytes(refused[: len(refused) // 3])
    succeed(*arguments(talker, output, "--batch-size", 3))
    assert output.read_bytes() == rows and sorted(beside.read_bytes().splitlines()) == sorted(refused.splitlines())


@pytest.mark.parametrize(("rows", "refused"), [(0.4, 0.6), (0.9, 0.0), (0.0, 1.0)])
def test_a_run_cut_off_anywhere_goes_on_to_the_same(
    rows: float, refused: float, talker: str, whole: tuple[bytes, bytes], tmp_path: Path
) -> None:
    """Files cut at any byte, one earlier than the other, as a power cut leaves them."""
    output = tmp_path / "a.jsonl"
    output.write_bytes(whole[0][: int(rows * len(whole[0]))])
    output.with_name("a.jsonl.refused").write_bytes(whole[1][: int(refused * len(whole[1]))])
    succeed(*arguments(talker, output))
    assert output.read_bytes() == whole[0]
    indices = sorted(row["index"] for row in read_lines(output.with_name("a.jsonl.refused")))
    assert indices == sorted(json.loads(line)["index"] for line in whole[1].splitlines())


def test_more_rows_go_on_from_those_there(talker: str, whole: tuple[bytes, bytes], tmp_path: Path) -> None:
    output = tmp_path / "a.jsonl"
    succeed(*arguments(talker, output, count=3))
    assert whole[0].startswith(output.read_bytes()) and len(read_lines(output)) == 3
    assert "  3 were written before\n" in succeed(*arguments(talker, output))
    assert (output.read_bytes(), output.with_name("a.jsonl.refused").read_bytes()) == whole
    assert "wrote 0 dialogues" in succeed(*arguments(talker, output))
    error = fail(*arguments(talker, output, "--set", "max_similarity=0.9"))
    assert "line 1 was written with self_prompted.max_similarity 0.4, now it is 0.9" in error


@pytest.mark.subprocess
@pytest.mark.slow
def test_a_killed_run_goes_on_to_the_same_rows(talker: str, whole: tuple[bytes, bytes], tmp_path: Path) -> None:
    output = tmp_path / "a.jsonl"
    process = start(arguments(talker, output), tmp_path / "log")
    while process.is_alive() and not (output.exists() and output.read_bytes().count(b"\n") >= 2):
        time.sleep(0.005)
    process.kill()
    end(process)
    kept = output.read_bytes()
    assert whole[0].startswith(kept)
    succeed(*arguments(talker, output))
    assert (output.read_bytes(), output.with_name("a.jsonl.refused").read_bytes()) == whole


def test_several_turns(talker: str, tmp_path: Path) -> None:
    output = tmp_path / "a.jsonl"
    succeed(*arguments(talker, output, "--turns", 2, "--system-prompt", "Be kind.", count=2))
    for row in read_lines(output):
        roles = [message["role"] for message in row["messages"]]
        assert roles == ["system", "user", "assistant", "user", "assistant"] and len(row["finish_reasons"]) == 2


def test_attempts_that_are_used_up_are_an_error(talker: str, tmp_path: Path) -> None:
    output = tmp_path / "a.jsonl"
    error = fail(*arguments(talker, output, "--script", "thai", "--max-attempts", 20))
    assert error.startswith(f"{output}: holds 0 of {COUNT} dialogues after 20 attempts; refused were ")
    assert " script" in error and error.endswith(f"({output}.refused has them). --max-attempts allows more\n")
    assert not output.exists() and len(read_lines(output.with_name("a.jsonl.refused"))) == 20


def test_an_interrupt_is_exit_code_130(talker: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The signal comes while the first batch is written."""
    from edgerazor.synthesize.sampling import TokenSampler

    choose = TokenSampler.choose

    def interrupt(*values: Any) -> Any:
        os.kill(os.getpid(), signal.SIGTERM)
        return choose(*values)

    output = tmp_path / "a.jsonl"
    with monkeypatch.context() as patch:
        patch.setattr(TokenSampler, "choose", interrupt)
        said = fail(*arguments(talker, output), code=130)
    assert said == f"stopped; {output} holds 0 of {COUNT} dialogues. The same command goes on from there.\n"


def test_options_that_do_not_go_together_are_errors(talker: str, tmp_path: Path) -> None:
    output, source = tmp_path / "a.jsonl", write_lines(tmp_path / "in.jsonl", [{"messages": [user("Why?")]}])
    own = ["synthesize", "--output", output, "--model", talker]
    assert fail(*own).startswith("which questions? name a source")
    assert "are for --self-prompted" in fail(*own, source, "--turns", 2)
    assert "leave a SOURCE, --limit out" in fail(*own, source, "--self-prompted", 3, "--limit", 2)
    assert "no limit 'max_similarty'; did you mean 'max_similarity'" in fail(
        *own, "--self-prompted", 3, "--set", "max_similarty=1"
    )
    assert "self_prompted.max_similarity: " in fail(*own, "--self-prompted", 3, "--set", "max_similarity=x")
    assert "no script 'latein'; did you mean 'latin'" in fail(*own, "--self-prompted", 3, "--script", "latein")
    server = ["synthesize", "--output", output, "--server", "http://127.0.0.1:1/v1", "--self-prompted", 3]
    assert fail(*server).startswith("--self-prompted needs a model on this machine (--model)")
    assert not output.exists()


def test_a_model_that_opens_no_turn_of_a_user_is_refused(tmp_path: Path) -> None:
    for name, text in (("none", None), ("upper", "{% for m in messages %}{{ m.content | upper }}{% endfor %}")):
        folder, output = save_teacher(tmp_path / name, template=text), tmp_path / f"{name}.jsonl"
        result = invoke(*arguments(folder, output))
        assert result.exit_code == 2 and f"{folder}: " in result.stderr and "chat template" in result.stderr
        assert not output.exists()
