"""Checkpoints of a run are whole or not there; the newest whole one is taken and what is wrong with others is named."""

import json
import shutil
from collections.abc import Callable
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from safetensors.torch import load_file

from edgerazor.checkpoint.pack_source import pack_source
from edgerazor.checkpoint.training_checkpoint import FILES, check_files, newest_whole
from edgerazor.core.claims import claimed
from edgerazor.core.registry import Registry
from edgerazor.errors import CheckpointError, OutputError, TrainingError
from edgerazor.schemas.recipe import load_recipe
from edgerazor.training import TrainResult, train
from tests.limits import quota
from tests.runs import recipe

pytestmark = pytest.mark.slow

SAVED = ("model.safetensors", "optimizer.pt", "scheduler.pt", "rng_state.pth", "trainer_state.json")


def run(folder: Path, registry: Registry, steps: int, **options: Any) -> TrainResult:
    training = {"max_steps": steps, "save_steps": 1, **options.pop("training", {})}
    loaded = load_recipe(recipe(folder, training=training, evaluation={"batches": 1}), registry=registry)
    return train(loaded, registry=registry, output=folder / "run", **options)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, registry: Registry) -> Path:
    """A folder with a run of three steps that saved each and keeps two."""
    folder = tmp_path_factory.mktemp("saved")
    run(folder, registry, 3)
    return folder


@pytest.fixture
def folder(finished: Path, tmp_path: Path) -> Path:
    copy = shutil.copytree(finished, tmp_path / "copy")
    resolved = copy / "run" / "recipe.yaml"
    resolved.write_text(resolved.read_text().replace(str(finished), str(copy)))
    return copy


def step(folder: Path, number: int) -> Path:
    return folder / "run" / "checkpoints" / f"checkpoint-{number}"


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


DAMAGES: dict[str, Callable[[Path], None]] = {
    "is missing": Path.unlink,
    "bytes, checkpoint_files": cut,
    "differs from the digest": flip,
}


@pytest.mark.parametrize("message", DAMAGES)
@pytest.mark.parametrize("name", SAVED)
def test_the_newest_whole_one_is_taken_and_each_damage_named(folder: Path, name: str, message: str) -> None:
    DAMAGES[message](step(folder, 3) / name)
    newest, problems = newest_whole(folder / "run" / "checkpoints", resume=True)
    assert newest == step(folder, 2)
    assert len(problems) == 1 and f"checkpoint-3: {name}: " in problems[0] and message in problems[0]


@pytest.mark.parametrize("damage", [Path.unlink, cut, flip])
def test_a_damaged_list_of_files_is_named(folder: Path, damage: Callable[[Path], None]) -> None:
    damage(step(folder, 3) / FILES)
    (step(folder, 3) / "optimizer.pt").unlink()
    newest, problems = newest_whole(folder / "run" / "checkpoints", resume=True)
    assert newest == step(folder, 2) and problems


def test_a_resumed_run_comes_to_the_same_end_and_repairs_what_was_damaged(
    folder: Path, finished: Path, registry: Registry
) -> None:
    (step(folder, 3) / "optimizer.pt").unlink()
    screen = StringIO()
    run(folder, registry, 3, resume=True, console=Console(file=screen))
    assert f"{step(folder, 3)}: optimizer.pt: is missing\ngoing on from {step(folder, 2)}" in screen.getvalue()
    check_files(step(folder, 3), resume=True)
    one, two = (load_file(step(place, 3) / "model.safetensors") for place in (folder, finished))
    assert one.keys() == two.keys() and all(one[name].equal(two[name]) for name in one)
    assert not list((folder / "run").rglob(".*"))


def test_with_no_whole_one_everything_is_named(folder: Path, registry: Registry) -> None:
    for number in (2, 3):
        flip(step(folder, number) / "model.safetensors")
    with pytest.raises(TrainingError, match=r"no checkpoint is whole\n.*checkpoint-3: model.*\n.*-2: model"):
        run(folder, registry, 3, resume=True)
    shutil.rmtree(folder / "run" / "packed")
    with pytest.raises(CheckpointError, match=r"no whole checkpoint:\n.*checkpoint-3: model.safetensors: its content"):
        pack_source(str(folder / "run"), registry=registry, output=folder / "packed")


def test_without_a_list_of_files_what_is_absent_is_named(folder: Path, registry: Registry) -> None:
    """As a run of version 0.1 was left by a kill, or by save_only_model."""
    (step(folder, 3) / FILES).unlink()
    check_files(step(folder, 3), resume=True)
    for name, what in (("optimizer.pt", "the optimizer"), ("rng_state.pth", "the random numbers")):
        (step(folder, 3) / name).unlink()
        with pytest.raises(CheckpointError, match=f"holds nothing of {what}"):
            check_files(step(folder, 3), resume=True)
    (step(folder, 3) / "trainer_state.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"trainer_state.json: is not valid JSON"):
        check_files(step(folder, 3), resume=False)


def test_pack_takes_a_whole_one_and_says_which(folder: Path, registry: Registry) -> None:
    shutil.rmtree(folder / "run" / "packed")
    flip(step(folder, 3) / "model.safetensors")
    notes = pack_source(str(folder / "run"), registry=registry, output=folder / "packed").notes
    assert "checkpoint-3: model.safetensors: its content" in notes[0]
    assert notes[1] == "checkpoint-2 is the newest whole checkpoint of the run"
    with pytest.raises(CheckpointError, match=r"model.safetensors: its content"):
        pack_source(str(step(folder, 3)), registry=registry, output=folder / "x", recipe=folder / "run/recipe.yaml")


def test_a_full_disk_is_said_and_what_was_saved_stays(folder: Path, registry: Registry) -> None:
    with (
        quota(100_000),
        pytest.raises(TrainingError, match=r"checkpoint-4: cannot be written: .*--resume"),
    ):
        run(folder, registry, 4, resume=True)
    assert sorted(path.name for path in (folder / "run" / "checkpoints").iterdir()) == [
        f"checkpoint-{number}" for number in (2, 3)
    ]
    assert run(folder, registry, 4, resume=True).steps == 4


def test_a_folder_in_use_is_refused(folder: Path, registry: Registry) -> None:
    with claimed(folder / "run", inside=True), pytest.raises(OutputError, match=r"/run: process \d+ on .* is writing"):
        run(folder, registry, 4, resume=True)


def test_the_oldest_are_removed_and_the_best_is_kept_also_where_the_run_moved(
    tmp_path: Path, registry: Registry
) -> None:
    values = {"save_total_limit": 2, "load_best_model_at_end": True, "metric_for_best_model": "loss"}
    training = {**values, "greater_is_better": True}  # an early one is the best
    loaded = recipe(tmp_path, training={"max_steps": 4, "save_steps": 1, "learning_rate": 1e-2, **training})
    loaded["evaluation"] = {"every_steps": 1, "batches": 1}
    for moved, steps in ((False, 4), (True, 5)):
        if moved:
            (tmp_path / "first").rename(tmp_path / "second")
        loaded["training"]["max_steps"] = steps
        output = tmp_path / ("second" if moved else "first")
        train(load_recipe(loaded, registry=registry), registry=registry, output=output, resume=moved)
        names = sorted(path.name for path in (output / "checkpoints").iterdir())
        state = json.loads((output / "checkpoints" / names[1] / "trainer_state.json").read_text())
        assert names == [Path(state["best_model_checkpoint"]).name, f"checkpoint-{steps}"]
        assert state["best_global_step"] < 4
    shutil.rmtree(tmp_path / "second" / "checkpoints" / names[0])
    loaded["training"]["max_steps"] = 6
    with pytest.raises(TrainingError, match=r"the best checkpoint so far:\n.*checkpoint-.: holds nothing"):
        train(load_recipe(loaded, registry=registry), registry=registry, output=tmp_path / "second", resume=True)
