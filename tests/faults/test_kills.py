"""SIGKILL at random moments of a command, then the same command: it ends well and leaves nothing behind."""

import random
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from edgerazor.checkpoint import verify_checkpoint
from tests.commands import invoke
from tests.faults.campaign import kills
from tests.forked_commands import end, start
from tests.runs import recipe, write_recipe

TRAINING = {"max_steps": 3, "save_steps": 1, "per_device_train_batch_size": 2}
LOSSES = {"task_weight": 0.1, "losses": [{"name": "forward_kl", "weight": 1.0}]}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("kills")
    content = recipe(folder, training=TRAINING, evaluation={"batches": 1})
    write_recipe(folder / "recipe.yaml", content)
    write_recipe(folder / "cached.yaml", {**content, "distillation": LOSSES})
    result = invoke("pack", folder / "model", "--recipe", folder / "recipe.yaml", "--output", folder / "packed")
    assert result.exit_code == 0, result.output
    return folder


Command = Callable[[Path, Path], list[object]]
COMMANDS: dict[str, Command] = {
    "pack": lambda folder, output: ["pack", folder / "model", "--recipe", folder / "recipe.yaml", "--output", output],
    "train": lambda folder, output: ["train", folder / "recipe.yaml", "--output", output],
    "cache-teacher": lambda folder, output: ["cache-teacher", folder / "cached.yaml", "--output", output],
    "gguf": lambda folder, output: ["export", folder / "packed", "--to", "gguf", "--output", output],
}


@pytest.mark.slow
@pytest.mark.subprocess
@pytest.mark.parametrize("name", COMMANDS)
def test_a_killed_command_ends_well_the_second_time(name: str, folder: Path, tmp_path: Path) -> None:
    chance, log = random.Random(name), tmp_path / "log"
    output = tmp_path / "out" / ("model.gguf" if name == "gguf" else "result")
    command = COMMANDS[name](folder, output)
    started = time.monotonic()
    assert end(start(command, log)) == 0, log.read_text()
    whole, finished = time.monotonic() - started, sorted(path.name for path in output.parent.rglob("*"))
    for _ in range(kills()):
        replaces = name in ("pack", "gguf") and chance.random() < 0.5
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
        if name in ("pack", "train"):
            verify_checkpoint(output if name == "pack" else output / "packed").raise_if_damaged()
