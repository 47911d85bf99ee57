"""Programs that a model wrote, run in a process with limits."""

import sys

import pytest

from edgerazor.evaluate.tasks.programs import passes

pytestmark = pytest.mark.subprocess


@pytest.mark.parametrize(
    ("program", "expected"),
    [
        ("assert 1 + 1 == 2", True),
        ("from __future__ import annotations\nimport math\nassert math.pi > 3", True),
        ("assert False", False),
        ("def f(:", False),
        ("import os\nos._exit(0)", False),
        ("raise SystemExit(0)", False),
        ("import sys\nsys.stdin.read()\nprint('x' * 10**7)\nprint('x' * 10**7, file=sys.stderr)", True),
        ("import os\nassert 'HOME' not in os.environ and len(os.listdir()) == 1", True),
        ("while True: pass", False),
    ],
)
def test_a_program_passes_if_it_runs_to_its_end(program: str, expected: bool) -> None:
    assert passes(program, seconds=1 if "while" in program else 60) is expected


@pytest.mark.skipif(sys.platform == "win32", reason="Windows knows none of these limits")
def test_a_program_does_not_fill_memory_or_disk() -> None:
    assert not passes("x = bytearray(8 * 2**30)", seconds=60)
    assert not passes("open('x', 'wb').write(bytes(2**21))", seconds=60)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no process groups of this kind")
def test_what_a_program_started_ends_with_it(tmp_path) -> None:
    late = tmp_path / "late"
    child = f"import time; time.sleep(1); open({str(late)!r}, 'w')"
    assert passes(f"import subprocess, sys\nsubprocess.Popen([sys.executable, '-c', {child!r}])", seconds=60)
    assert passes("import time\ntime.sleep(2)", seconds=60) and not late.exists()
