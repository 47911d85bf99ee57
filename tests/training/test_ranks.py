"""Two processes that train together: what happens to one where the other ends, who writes what, and resuming."""

import json
import shutil
from pathlib import Path

import pytest

from edgerazor.checkpoint.training_checkpoint import newest_whole
from tests.commands import fail, invoke, succeed
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


def kill_rank(folder: Path, run: Path, rank: int) -> tuple[list[int], list[str]]:
    """How two processes end, and what they say, where one is killed once something was saved."""
    logs = folder / f"{run.name}-logs"
    ranks = start_ranks(train(folder, run, 2), logs)
    wait_for(run / "checkpoints" / "checkpoint-2")
    ranks[rank].kill()
    return end_ranks(ranks, logs)


@pytest.fixture(scope="module")
def killed(folder: Path) -> Path:
    """A run of two processes, the second of which was killed."""
    codes, words = kill_rank(folder, folder / "killed", 1)
    assert codes == [2, -9] and "Traceback" not in words[0]
    assert words[0].splitlines()[-1].startswith("rank 0: rank 1 ended before the run did: it was killed")
    return folder / "killed"


@pytest.fixture(scope="module")
def saved(killed: Path) -> int:
    """The step from which it goes on."""
    newest, _ = newest_whole(killed / "checkpoints", resume=True)
    assert newest is not None
    return int(newest.name.partition("-")[2])


@pytest.fixture(scope="module")
def by_one(killed: Path, saved: int, folder: Path) -> Path:
    """The killed run as one process went on with it, for four steps."""
    run = shutil.copytree(killed, folder / "by-one")
    newest = run / "checkpoints" / f"checkpoint-{saved}"
    said = fail(*train(folder, run, 2, "--resume"))
    assert f"{newest}: was saved by 2 processes, not 1: a step would learn from 1 x 4 x 1 = 4 rows, but had 2 x" in said
    result = invoke(*train(folder, run, 1, "--resume", *until(saved + 4)))
    assert result.exit_code == 0, result.output
    assert f"{newest}: was saved by 2 processes, not 1: every step has the same 8 rows in the same" in result.stderr
    return run


def test_a_killed_run_goes_on_and_the_first_rank_alone_writes_what_is_shared(
    killed: Path, saved: int, by_one: Path, folder: Path
) -> None:
    before, logs = set(killed.rglob("*")), folder / "resumed"
    limits = [{"umask": 0o002}, {"umask": 0o020}]
    codes, words = end_ranks(start_ranks(train(folder, killed, 2, "--resume", *until(saved + 2)), logs, limits), logs)
    assert codes == [0, 0] and [text.count("trained") for text in words] == [1, 0], words
    assert len(losses(killed)) == saved + 2
    assert losses(killed) == pytest.approx(losses(by_one)[: saved + 2], rel=1e-4)

    made = {path: path.stat().st_mode for path in killed.rglob("*") if path.is_file() and path not in before}
    by_first, by_second = ([path.name for path, mode in made.items() if mode & bit] for bit in (0o020, 0o002))
    assert by_second == ["rng_state_1.pth"]  # of a checkpoint, like the rng_state_0.pth of the first
    assert {"metrics.json", "edgerazor.json", "trainer_state.json", "optimizer.pt", "rng_state_0.pth"} <= {*by_first}
    assert (killed / "recipe.yaml").stat().st_mode & 0o020
    assert not list(killed.rglob(".*"))


def test_two_processes_go_on_with_the_run_of_one(saved: int, by_one: Path, folder: Path) -> None:
    run, logs = folder / "one", folder / "one-logs"
    succeed(*train(folder, run, 1, *until(saved + 2)))
    codes, words = end_ranks(start_ranks(train(folder, run, 2, "--resume", *until(saved + 4)), logs), logs)
    assert codes == [0, 0], words
    assert ["every step has the same 8 rows" in text for text in words] == [True, False]
    assert losses(run) == pytest.approx(losses(by_one), rel=1e-4)


def test_where_the_first_rank_is_killed_the_other_names_it(folder: Path) -> None:
    codes, words = kill_rank(folder, folder / "first", 0)
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
