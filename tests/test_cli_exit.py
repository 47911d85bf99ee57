"""How the command line ends: a full disk, a closed pipe, an interrupt, a traceback that was asked for."""

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from edgerazor.cli import main
from tests.commands import fail

FULL = Path("/dev/full")


@pytest.mark.skipif(not FULL.exists(), reason="this system has no /dev/full")
@pytest.mark.subprocess
def test_a_full_disk_is_said() -> None:
    assert fail("schema", "--output", FULL) == f"{FULL}: cannot be written: No space left on device\n"
    with FULL.open("w") as full:
        command = [sys.executable, "-m", "edgerazor", "schema"]
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert (done.returncode, done.stderr.splitlines()[0]) == (2, "No space left on device")


@pytest.mark.subprocess
def test_a_reader_that_stops_is_no_fault() -> None:
    command = [sys.executable, "-m", "edgerazor", "schema"]
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, text=True, check=False)
    os.close(writing)
    assert (done.returncode, done.stderr) == (1, "")


def test_an_interrupt_anywhere_else_is_exit_code_130(tmp_path: Path) -> None:
    """A recipe that is a pipe nobody writes to keeps the command waiting."""
    os.mkfifo(tmp_path / "recipe.yaml")
    ended = threading.Event()

    def interrupt() -> None:
        with (tmp_path / "recipe.yaml").open("w"):
            while not ended.wait(timeout=0.2):
                signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

    # A process that was started in the background may ignore the signal.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    threading.Thread(target=interrupt, daemon=True).start()
    try:
        assert fail("check", tmp_path / "recipe.yaml", code=130) == ""
    finally:
        ended.set()
        signal.signal(signal.SIGINT, before)


@pytest.mark.subprocess
def test_debug_shows_the_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["check", "absent.yaml"])
    assert caught.value.code == 2
    assert capsys.readouterr().err == "absent.yaml: cannot be read: No such file or directory\n"
    done = subprocess.run(
        [sys.executable, "-m", "edgerazor", "check", "absent.yaml", "--debug"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode != 0
    assert "Traceback" in done.stderr and "RecipeError" in done.stderr
