"""The file that grows: nothing lost, nothing twice, whatever cut it off."""

import os
from pathlib import Path

import pytest
from synthesize_cases import assistant, dialogues, prompts_of, read_lines, settings, write_lines

from edgerazor.errors import OutputError, SynthesisError
from edgerazor.synthesize.drafts import Answer, Draft, FinishedDialogue
from edgerazor.synthesize.store import RowStore
from tests.limits import quota


@pytest.fixture
def written(tmp_path: Path) -> list[FinishedDialogue]:
    """Three finished dialogues."""
    drafts = [Draft(prompt) for prompt in prompts_of(write_lines(tmp_path / "in.jsonl", dialogues(3)), settings())]
    for draft in drafts:
        while not draft.finished:
            draft.add(Answer(f"naïve 你好 🙂 {draft.seed}\nline", "stop"))
    return [draft.written() for draft in drafts]


def fill(path: Path, rows: list[FinishedDialogue]) -> bytes:
    """Append what is missing."""
    with RowStore(path, settings()) as store:
        for row in rows:
            if row.prompt.id not in store.done:
                store.append(row)
    return path.read_bytes()


def test_rows_say_what_they_are(written: list[FinishedDialogue], tmp_path: Path) -> None:
    fill(tmp_path / "deep" / "out.jsonl", written)
    rows = read_lines(tmp_path / "deep" / "out.jsonl")
    assert [row["id"] for row in rows] == [dialogue.prompt.id for dialogue in written]
    assert rows[0]["messages"] == written[0].messages
    assert rows[0]["messages"][1] == assistant(rows[0]["messages"][1]["content"])
    assert rows[1]["finish_reasons"] == ["stop", "stop"]
    assert rows[0]["settings"] == settings().model_dump(mode="json")


def test_a_file_cut_anywhere_becomes_whole_again(written: list[FinishedDialogue], tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    whole = fill(path, written)
    ends = [index for index, byte in enumerate(whole) if byte == ord("\n")]
    near_an_end = {end + step for end in [0, *ends] for step in range(-4, 9)} & set(range(len(whole)))
    for length in sorted(near_an_end | set(range(0, len(whole), 37))):
        path.write_bytes(whole[:length])
        with RowStore(path, settings()) as store:
            assert len(store.done) == sum(end <= length for end in ends)
            for row in written[len(store.done) :]:
                store.append(row)
        assert path.read_bytes() == whole


def test_zeros_that_a_power_cut_left_are_removed(written: list[FinishedDialogue], tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    whole = fill(path, written)
    for torn in (b"\0" * 100_000, b'{"id": "ab\0\0\0'):
        path.write_bytes(whole + torn)
        assert fill(path, written) == whole


def test_a_file_that_nothing_was_written_to_is_not_left_behind(tmp_path: Path) -> None:
    with RowStore(tmp_path / "out.jsonl", settings()):
        pass
    assert not (tmp_path / "out.jsonl").exists()


def test_other_settings_are_refused_by_name(written: list[FinishedDialogue], tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    whole = fill(path, written)
    with pytest.raises(SynthesisError) as caught:
        RowStore(path, settings(temperature=1.0, system_prompt="Be kind."))
    first, second = str(caught.value).splitlines()
    assert first.startswith(f'{path}: line 1 was written with system_prompt null, now it is "Be kind."')
    assert second.startswith(f"{path}: line 1 was written with temperature 0.7, now it is 1.0")
    assert path.read_bytes() == whole


@pytest.mark.parametrize(
    "content", [b'{"messages": []}\n', b"text\n", b"text", b"[1]\n", b'{"id": 3, "settings": {}}\n']
)
def test_a_file_of_another_origin_is_left_alone(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    path.write_bytes(content)
    with pytest.raises(SynthesisError, match="is not from `edgerazor synthesize`"):
        RowStore(path, settings())
    assert path.read_bytes() == content


def test_two_runs_cannot_write_to_one_file(written: list[FinishedDialogue], tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    with RowStore(path, settings()) as store:
        store.append(written[0])
        with pytest.raises(OutputError, match="is writing to it; wait for its end"):
            RowStore(path, settings())
        store.append(written[1])
    assert len(read_lines(path)) == 2


def test_a_full_disk_keeps_whole_rows(written: list[FinishedDialogue], tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    whole = fill(path, written)
    lines = whole.splitlines(keepends=True)
    path.unlink()
    with RowStore(path, settings()) as store, quota(len(lines[0]) + 20):
        store.append(written[0])
        with pytest.raises(SynthesisError, match="cannot be written: File too large"):
            store.append(written[1])
    assert path.read_bytes() == lines[0]
    assert fill(path, written) == whole


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match=r"file/out\.jsonl: cannot be written: "):
        RowStore(tmp_path / "file" / "out.jsonl", settings())
    with pytest.raises(SynthesisError, match="cannot be written: Is a directory"):
        RowStore(tmp_path, settings())


def test_no_descriptor_is_left_open(written: list[FinishedDialogue], tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"

    def lowest_free() -> int:
        number = os.dup(0)
        os.close(number)
        return number

    before = lowest_free()
    for _ in range(3):
        fill(path, written)
        with pytest.raises(SynthesisError):
            RowStore(path, settings(seed=1))
    assert lowest_free() == before
