"""One process at a time holds an output, whatever it is called; nothing of the lock stays."""

import os
import signal
from pathlib import Path

import pytest

from edgerazor.core.claims import claimed
from edgerazor.errors import OutputError


@pytest.mark.parametrize("inside", [False, True])
def test_a_second_claim_is_refused_under_any_name_and_the_lock_goes(inside: bool, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "new")
    with claimed(tmp_path / "new" / "model", inside=inside):
        for name in ("new/model", "link/model"):
            with (
                pytest.raises(OutputError, match=rf"^{tmp_path / name}: process {os.getpid()} on "),
                claimed(tmp_path / name, inside=inside),
            ):
                pass
        with claimed(tmp_path / "new" / "other", inside=inside):
            pass
    assert [path.name for path in tmp_path.iterdir()] == ["link"]


def test_folders_that_hold_something_at_the_end_stay(tmp_path: Path) -> None:
    with claimed(tmp_path / "new" / "run", inside=True):
        (tmp_path / "new" / "run" / "result").write_text("done")
    assert [path.name for path in (tmp_path / "new" / "run").iterdir()] == ["result"]


def test_what_a_killed_process_held_is_free(tmp_path: Path) -> None:
    child = os.fork()
    if not child:
        with claimed(tmp_path / "model"):
            os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)
    assert (tmp_path / ".model.lock").read_text().startswith(f"process {child} on ")
    with claimed(tmp_path / "model"):
        assert (tmp_path / ".model.lock").read_text().startswith(f"process {os.getpid()} on ")
    assert list(tmp_path.iterdir()) == []


def test_an_output_that_nothing_can_be_written_to_is_named(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with (
        pytest.raises(OutputError, match=r"notes.txt/model: cannot be written: "),
        claimed(tmp_path / "notes.txt/model"),
    ):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]
