"""The page about Python: its blocks are one program, and what it names exists."""

import re
from pathlib import Path

import pytest

import edgerazor
from tests.forked_commands import run_program

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "guide" / "python-api.md").read_text(encoding="utf-8")


@pytest.mark.subprocess
def test_the_blocks_run_as_one_program(tmp_path: Path) -> None:
    pytest.importorskip("gguf")
    program = tmp_path / "program.py"
    program.write_text("\n".join(re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)), encoding="utf-8")
    steps = re.findall(r"^\d (.*)$", run_program(program, folder=tmp_path), re.MULTILINE)
    assert len(steps) == 5 and all("eakld" in step and "feature_mse" in step for step in steps)
    assert (tmp_path / "model.gguf").exists() and (tmp_path / "packed" / "edgerazor.json").exists()


def test_every_block_is_python() -> None:
    assert set(re.findall(r"```(\w+)\n", PAGE)) == {"python"}


def test_the_names_in_its_table_exist() -> None:
    (row,) = [line for line in PAGE.splitlines() if line.endswith("| `edgerazor` |")]
    assert set(re.findall(r"`(\w+)`", row)) - {"edgerazor"} <= set(edgerazor.__all__)
