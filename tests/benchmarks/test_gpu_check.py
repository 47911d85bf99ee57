"""`scripts/gpu_check.sh`: it is valid, the files it names exist, and failed stages are told and tried again."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.subprocess
ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "scripts" / "gpu_check.sh"


def run(out: Path, **settings: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "DEVICE": "cpu", **settings}
    return subprocess.run([str(SCRIPT), str(out)], env=environment, capture_output=True, text=True, check=False)


def test_the_files_that_it_names_exist() -> None:
    text = SCRIPT.read_text(encoding="utf-8")
    loop = re.search(r"for script in (.*); do", text)
    assert loop is not None
    named = [f"benchmarks/{script}.py" for script in loop[1].split()]
    named += re.findall(r"DATA:-([^}]*)}", text)
    assert len(named) == 5
    assert [name for name in named if not (ROOT / name).is_file()] == []
    assert subprocess.run(["bash", "-n", str(SCRIPT)], check=False).returncode == 0


def test_a_stage_that_failed_is_tried_again_and_one_that_is_done_is_not(tmp_path: Path) -> None:
    settings = {"STAGES": "install teacher", "TEACHER": str(tmp_path / "teacher"), "WHEELS": str(tmp_path / "none")}
    failed = run(tmp_path / "out", **settings)
    assert failed.returncode == 1 and "failed: teacher" in failed.stderr
    (tmp_path / "teacher").mkdir()
    content = os.urandom(3000)
    (tmp_path / "whole").write_bytes(content)
    packed = subprocess.run(["xz", "--stdout", str(tmp_path / "whole")], capture_output=True, check=True).stdout
    for place, part in enumerate((packed[:1000], packed[1000:])):
        (tmp_path / "teacher" / f"model.safetensors.xz.part-{place}").write_bytes(part)
    again = run(tmp_path / "out", **settings)
    assert again.returncode == 0 and "== install" not in again.stdout
    assert (tmp_path / "teacher" / "model.safetensors").read_bytes() == content


@pytest.mark.slow
def test_the_tests_that_need_a_device_are_found(tmp_path: Path) -> None:
    done = run(tmp_path / "out", STAGES="tests", PYTHON=sys.executable)
    assert done.returncode == 0, (tmp_path / "out" / "tests.log").read_text(encoding="utf-8")
