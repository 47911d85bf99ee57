"""SIGKILL at random moments of a command, then the same command: it ends well and leaves nothing behind."""

import random
import shutil
import time
from pathlib import Path

import pytest

from edgerazor.checkpoint import verify_checkpoint
from tests.faults.campaign import kills
from tests.faults.cases import COMMANDS, REPLACING, make_inputs, output_of
from tests.forked_commands import end, start


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_inputs(tmp_path_factory.mktemp("kills"))


@pytest.mark.slow
@pytest.mark.subprocess
@pytest.mark.parametrize("name", COMMANDS)
def test_a_killed_command_ends_well_the_second_time(name: str, folder: Path, tmp_path: Path) -> None:
    chance, log = random.Random(name), tmp_path / "log"
    output = output_of(name, tmp_path)
    command = COMMANDS[name](folder, output)
    started = time.monotonic()
    assert end(start(command, log)) == 0, log.read_text()
    whole, finished = time.monotonic() - started, sorted(path.name for path in output.parent.rglob("*"))
    for _ in range(kills()):
        replaces = name in REPLACING and chance.random() < 0.5
        if not replaces:
            shutil.rmtree(output.parent)
        child = start(command, log)
        time.sleep(chance.uniform(0, whole))
        child.kill()
        end(child)
        if replaces:
            assert output.exists()  # what was finished is not lost
        again = command
        if name == "train" and ((output / "packed").exists() or list((output / "checkpoints").glob("checkpoint-*"))):
            again = [*command, "--resume"]
        assert end(start(again, log)) == 0, log.read_text()
        assert "Traceback" not in log.read_text()
        assert sorted(path.name for path in output.parent.rglob("*")) == finished
        if name in ("pack", "import", "train"):
            verify_checkpoint(output / "packed" if name == "train" else output).raise_if_damaged()
