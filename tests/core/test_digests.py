"""What is wrong with a file is said the same way whoever keeps the list."""

import hashlib
from collections.abc import Callable
from pathlib import Path

import pytest

from edgerazor.core.digests import _CHUNK, file_digests, file_fault

CONTENT = bytes(range(256)) * 9000  # more than is read at a time
DAMAGES: dict[str, Callable[[Path], object]] = {
    "is missing": Path.unlink,
    "has 3 bytes, list.json says 2304000": lambda path: path.write_bytes(b"abc"),
    "its content differs from the digest in list.json": lambda path: path.write_bytes(CONTENT[::-1]),
}


@pytest.mark.parametrize("names", [("sha256",), ("xxh3_128",), ("sha256", "xxh3_128")])
@pytest.mark.parametrize("message", DAMAGES)
def test_a_damaged_file_is_described(message: str, names: tuple[str, ...], tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(CONTENT)
    size, digests = len(CONTENT), file_digests(path, *names)
    assert sorted(digests) == sorted(names) and file_fault(path, size, digests, listed_in="list.json") is None
    DAMAGES[message](path)
    assert file_fault(path, size, digests, listed_in="list.json") == message


def test_every_digest_that_is_listed_is_compared(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(CONTENT)
    digests = file_digests(path, "sha256", "xxh3_128")
    for name, digest in digests.items():
        assert file_fault(path, len(CONTENT), {**digests, name: digest[::-1]}, listed_in="list.json") is not None
    assert file_fault(path, len(CONTENT), {}, listed_in="list.json") is None


@pytest.mark.parametrize("size", [_CHUNK, _CHUNK + 1])
def test_a_large_file_has_the_digests_of_its_bytes(size: int, tmp_path: Path) -> None:
    path = tmp_path / "file"
    with path.open("wb") as file:
        file.seek(size - 3)
        file.write(b"end")
    expected = {"sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
    assert file_digests(path, "sha256") == expected


def test_known_digests(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    assert file_digests(tmp_path / "file", "sha256", "xxh3_128") == {
        "sha256": "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
        "xxh3_128": "99aa06d3014798d86001c324468d497f",
    }
