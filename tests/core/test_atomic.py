"""What is written beside a path replaces it whole, or leaves everything as it was."""

import errno
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from edgerazor.core import atomic
from edgerazor.core.atomic import file_above, remove_folder, replaced, write_text
from edgerazor.core.locks import locked
from tests.limits import quota


def content(folder: Path) -> dict[str, str]:
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_text() for path in files}


def make(path: Path, kind: str, text: str) -> None:
    if kind == "file":
        path.write_text(text)
    else:
        (path / "inner").mkdir(parents=True)
        (path / "inner" / text).write_text(text)


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_what_was_there_is_replaced(kind: str, tmp_path: Path) -> None:
    for text in ("first", "second"):
        with replaced(tmp_path / "above" / "model") as temporary:
            make(temporary, kind, text)
            if text == "second":
                assert "first" in str(content(tmp_path / "above" / "model") or (tmp_path / "above/model").read_text())
    assert content(tmp_path) == {"above/model" if kind == "file" else "above/model/inner/second": "second"}


@pytest.mark.parametrize("kind", ["file", "folder"])
@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_a_failure_leaves_nothing(kind: str, error: type[BaseException], tmp_path: Path) -> None:
    make(tmp_path / "model", kind, "kept")
    before = content(tmp_path)
    for path in (tmp_path / "model", tmp_path / "new" / "newer" / "model"):
        with pytest.raises(error), replaced(path) as temporary:
            make(temporary, kind, "begun")
            raise error
    assert content(tmp_path) == before and [path.name for path in tmp_path.iterdir()] == ["model"]


def test_an_empty_folder_makes_room_and_a_full_one_is_no_file(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    with replaced(tmp_path / "model") as temporary:
        make(temporary, "folder", "text")
    assert content(tmp_path) == {"model/inner/text": "text"}
    with pytest.raises(OSError), replaced(tmp_path / "model") as temporary:
        make(temporary, "file", "text")
    assert content(tmp_path) == {"model/inner/text": "text"} and len(list(tmp_path.iterdir())) == 1


def test_a_block_that_makes_nothing_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), replaced(tmp_path / "above" / "model"):
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_file_above_is_named(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    assert file_above(tmp_path / "notes.txt" / "a" / "b") == tmp_path / "notes.txt"
    assert file_above(tmp_path / "a" / "b") is None
    with pytest.raises(OSError), replaced(tmp_path / "notes.txt" / "a" / "b"):
        pass
    assert content(tmp_path) == {"notes.txt": "mine"}


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_what_a_killed_process_left_is_removed_and_what_a_living_one_makes_is_not(kind: str, tmp_path: Path) -> None:
    killed = tmp_path / ".model.partial-00000000"
    make(killed / "model", "folder", "begun")
    with replaced(tmp_path / "model") as first:
        assert not killed.exists()
        make(first, kind, "first")
        with replaced(tmp_path / "model") as second:
            make(second, kind, "second")
        assert first.exists()
    assert list(content(tmp_path)) == ["model" if kind == "file" else "model/inner/first"]
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_a_folder_that_a_killed_process_had_put_aside_is_put_back(tmp_path: Path) -> None:
    make(tmp_path / ".model.partial-00000000" / "former", "folder", "finished")
    with pytest.raises(ValueError, match="stop"), replaced(tmp_path / "model") as temporary:
        make(temporary, "folder", "begun")
        raise ValueError("stop")
    assert content(tmp_path) == {"model/inner/finished": "finished"}


def test_without_an_exchange_by_the_system_a_folder_is_replaced_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(atomic, "_EXCHANGE", -1)  # no flag that a system knows
    for text in ("first", "second"):
        with replaced(tmp_path / "model") as temporary:
            make(temporary, "folder", text)
    assert content(tmp_path) == {"model/inner/second": "second"} and len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOTSUP, errno.ENOSYS])
def test_a_file_system_without_fsync_is_no_fault(number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(descriptor: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", refuse)
    with replaced(tmp_path / "model") as temporary:
        make(temporary, "folder", "text")
    assert content(tmp_path) == {"model/inner/text": "text"}


def test_a_disk_that_fails_while_it_is_synchronized_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(descriptor: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="Input/output error"), replaced(tmp_path / "model") as temporary:
        make(temporary, "file", "text")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_is_removed_under_its_name_at_once(tmp_path: Path) -> None:
    make(tmp_path / "old", "folder", "text")
    remove_folder(tmp_path / "old")
    assert list(tmp_path.iterdir()) == []


def test_a_lock_is_held_by_one_and_ends_with_its_block(tmp_path: Path) -> None:
    with locked(tmp_path) as first, locked(tmp_path) as second:
        assert (first, second) == (True, False)
    with locked(tmp_path) as third:
        assert third


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_several_at_once_leave_what_one_of_them_made(kind: str, tmp_path: Path) -> None:
    def write(text: str) -> None:
        for _ in range(10):
            with replaced(tmp_path / "above" / "model") as temporary:
                make(temporary, kind, text)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(write, "abcd"))
    (found,) = content(tmp_path).items()
    assert found[1] in set("abcd") and found[0] == (
        "above/model" if kind == "file" else f"above/model/inner/{found[1]}"
    )
    assert len(list((tmp_path / "above").iterdir())) == 1


def test_text_replaces_a_file_whole_and_goes_directly_into_a_pipe(tmp_path: Path) -> None:
    write_text(tmp_path / "text", "first")
    with quota(0), pytest.raises(OSError):
        write_text(tmp_path / "text", "second")
    assert content(tmp_path) == {"text": "first"} and len(list(tmp_path.iterdir())) == 1
    with pytest.raises(FileNotFoundError):
        write_text(tmp_path / "absent" / "text", "text")
    os.mkfifo(tmp_path / "pipe")
    reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    write_text(tmp_path / "pipe", "text")
    assert os.read(reader, 9) == b"text"
    os.close(reader)
    with pytest.raises(OSError, match="a device or a pipe"), replaced(tmp_path / "pipe"):
        pass
