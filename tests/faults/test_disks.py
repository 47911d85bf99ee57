"""A disk that is full or takes nothing: one message, exit code 2, nothing finished is lost or left half made."""

import random
import shutil
from pathlib import Path

import pytest

from tests.commands import fail, succeed
from tests.faults.campaign import fills
from tests.faults.cases import COMMANDS, REPLACING, make_inputs, output_of
from tests.limits import quota

READ_ONLY = Path("/sys")  # takes no new file or folder, whoever asks


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_inputs(tmp_path_factory.mktemp("disks"))


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.skipif(not READ_ONLY.is_dir(), reason="this system has no /sys")
@pytest.mark.parametrize("name", COMMANDS)
def test_a_disk_that_cannot_be_written_to(name: str, folder: Path) -> None:
    said = fail(*COMMANDS[name](folder, output_of(name, READ_ONLY / "edgerazor")))
    assert f"{READ_ONLY}/edgerazor" in said and "cannot be written: " in said, said
    assert len(said.strip().splitlines()) == 1


@pytest.mark.slow
@pytest.mark.parametrize("name", COMMANDS)
def test_a_disk_that_is_full(name: str, folder: Path, tmp_path: Path) -> None:
    """At any file that is larger than some size; then there is room, and the same command ends well."""
    chance, output = random.Random(name), output_of(name, tmp_path)
    command = COMMANDS[name](folder, output)
    succeed(*command)
    whole = content(output.parent)
    largest = max(map(len, whole.values()))
    for _ in range(fills()):
        replaces = name in REPLACING and chance.random() < 0.5
        if not replaces:
            shutil.rmtree(output.parent)
        with quota(chance.randrange(largest)):
            said = fail(*command)
        assert "cannot be written: " in said or "No space" in said or "too large" in said, said
        assert not replaces or content(output.parent) == whole
        assert not [path for path in tmp_path.rglob("*") if ".partial-" in path.name]
        again = command
        if name == "train" and list((output / "checkpoints").glob("checkpoint-*")):
            again = [*command, "--resume"]
        succeed(*again)
        assert content(output.parent).keys() == whole.keys()
