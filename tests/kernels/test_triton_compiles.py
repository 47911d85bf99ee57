"""Every kernel compiles for a GPU without one, and the arithmetic that must be exact stays exact (KERNELS 4)."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.kernels.compile_ahead import variants

pytest.importorskip("triton")

pytestmark = pytest.mark.subprocess
ROOT = Path(__file__).parents[2]
NAMES = list(variants())
HALF_TO_EVEN = "0f4B400000"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """PTX and machine code of every variant."""
    made = tmp_path_factory.mktemp("compiled")
    environment = {key: value for key, value in os.environ.items() if key != "TRITON_INTERPRET"}
    environment["TRITON_CACHE_DIR"] = str(tmp_path_factory.mktemp("cache"))
    command = [sys.executable, "-m", "tests.kernels.compile_ahead", str(made)]
    done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return made


@pytest.mark.parametrize("name", NAMES)
def test_it_compiles_to_machine_code(name: str, folder: Path) -> None:
    assert (folder / f"{name}.cubin").read_bytes().startswith(b"\x7fELF")
    ptx = (folder / f"{name}.ptx").read_text(encoding="utf-8")
    assert "sm_90" in ptx and "div.full" not in ptx
    assert "ld.global.v4" in ptx or "smallest" in name, "logits and weights are read sixteen bytes at a time"


@pytest.mark.parametrize("name", [name for name in NAMES if name.startswith("quantize") and "smallest" not in name])
def test_quantization_divides_and_rounds_as_ieee_says(name: str, folder: Path) -> None:
    ptx = (folder / f"{name}.ptx").read_text(encoding="utf-8")
    assert not re.search(r"\b(fma|rcp|div\.approx|ex2)\b", ptx)
    if "absmean" in name:
        assert HALF_TO_EVEN not in ptx and "div.rn.f32" not in ptx
    else:
        assert len(re.findall(rf"add\.f32 .*{HALF_TO_EVEN}", ptx)) > 1 and "div.rn.f32" in ptx
    if "absmean" in name or "mixed" in name:
        assert re.search(r"add(\.rn)?\.f64", ptx) and "div.rn.f64" in ptx, "the sum behind a mean is float64"
