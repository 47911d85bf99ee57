"""Two processes that train together: what happens to one where the other ends, and who writes what."""

import json
from pathlib import Path

import pytest

from edgerazor.checkpoint.training_checkpoint import newest_whole
from tests.commands import succeed
from tests.ranks import end_ranks, start_ranks, wait_for
from tests.runs import recipe, write_recipe

pytestmark = [pytest.mark.slow, pytest.mark.subprocess]

ENDLESS, LIMIT = 100_000, 8_000  # steps; bytes, between what a log takes and the state of random numbers


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Holds recipes for one and for two processes; the same eight rows make a step in both."""
    folder = tmp_path_factory.mktemp("ranks")
    for processes in (1, 2):
        training = {"per_device_train_batch_size": 8 // processes, "max_steps": ENDLESS, "save_steps": 2}
        content = recipe(folder, training={**training, "warmup_steps": 0})
        write_recipe(folder / f"{processes}.yaml", content)
    return folder


def train(folder: Path, output: Path, processes: int, *more: object) -> list[object]:
    return ["train", folder / f"{processes}.yaml", "--output", output, *more]


def until(steps: int) -> tuple[str, ...]:
    return "--set", f"training.max_steps={steps}"


def losses(run: Path) -> list[float]:
    return [entry["loss"] for entry in json.loads((run / "metrics.json").read_text())["history"] if "loss" in entry]


@pytest.fixture(scope="module")
def killed(folder: Path) -> Path:
    """A run of two processes, the second of which was killed once something was saved."""
    run, logs = folder / "killed", folder / "killed-logs"
    ranks = start_ranks(train(folder, run, 2), logs)
    wait_for(run / "checkpoints" / "checkpoint-2")
    ranks[1].kill()
    codes, words = end_ranks(ranks, logs)
    assert codes == [2, -9] and "Traceback" not in words[0]
    assert words[0].splitlines()[-1].startswith("rank 0: rank 1 ended before the run did: it was killed")
    return run


def test_a_killed_run_goes_on_and_the_first_rank_alone_writes_what_is_shared(killed: Path, folder: Path) -> None:
    newest, _ = newest_whole(killed / "checkpoints", resume=True)
    assert newest is not None
    steps, before = int(newest.name.partition("-")[2]) + 2, set(killed.rglob("*"))
    ranks = start_ranks(
        train(folder, killed, 2, "--resume", *until(steps)), folder / "resumed", [{"umask": 0o002}, {"umask": 0o020}]
    )
    codes, words = end_ranks(ranks, folder / "resumed")
    assert codes == [0, 0] and [text.count("trained") for text in words] == [1, 0], words

    succeed(*train(folder, folder / "one", 1, *until(steps)))
    assert losses(killed) == pytest.approx(losses(folder / "one"), rel=1e-4)
    assert len(losses(killed)) == steps

    made = {path: path.stat().st_mode for path in killed.rglob("*") if path.is_file() and path not in before}
    by_first, by_second = ([path.name for path, mode in made.items() if mode & bit] for bit in (0o020, 0o002))
    assert by_second == ["rng_state_1.pth"]  # of a checkpoint, like the rng_state_0.pth of the first
    assert {"metrics.json", "edgerazor.json", "trainer_state.json", "optimizer.pt", "rng_state_0.pth"} <= {*by_first}
    assert (killed / "recipe.yaml").stat().st_mode & 0o020
    assert not list(killed.rglob(".*"))


def test_where_the_first_rank_is_killed_the_other_names_it(folder: Path) -> None:
    run, logs = folder / "first", folder / "first-logs"
    ranks = start_ranks(train(folder, run, 2), logs)
    wait_for(run / "checkpoints" / "checkpoint-2")
    ranks[0].kill()
    codes, words = end_ranks(ranks, logs)
    assert codes == [-9, 2] and "Traceback" not in words[1]
    assert "rank 1: rank 0 ended before the run did: it was killed" in words[1]


def test_a_rank_that_fails_tells_the_other_why(folder: Path) -> None:
    run, logs = folder / "full", folder / "full-logs"
    codes, words = end_ranks(start_ranks(train(folder, run, 2), logs, [{}, {"largest": LIMIT}]), logs)
    assert codes == [2, 2] and not any("Traceback" in text for text in words)
    reason = f"{run / 'checkpoints' / 'checkpoint-2'}: cannot be written: "
    assert f"rank 1: {reason}" in words[1]
    assert f"rank 0: rank 1 ended before the run did: {reason}" in words[0]
    assert not list((run / "checkpoints").iterdir()) and not list(run.rglob(".*"))
