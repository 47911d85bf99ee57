"""What is written beside a path replaces it whole, or leaves everything as it was."""

from pathlib import Path

import pytest

from edgerazor.core.atomic import file_above, replaced


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
