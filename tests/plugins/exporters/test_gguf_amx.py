"""A llama.cpp that ends the process is an error with a way out, not a silent end of ours."""

import subprocess
import sys
from pathlib import Path

import pytest
from gguf_cases import make, pack_case

from edgerazor.checkpoint import open_checkpoint
from edgerazor.core.registry import Registry
from edgerazor.errors import PluginError

pytest.importorskip("llama_cpp")

from edgerazor.plugins.exporters.gguf.amx import check_survival, prompt_command, require_working_amx

pytestmark = [pytest.mark.llamacpp, pytest.mark.subprocess]


def test_a_signal_is_an_error_that_says_what_to_do() -> None:
    dying = "import os, signal; os.kill(os.getpid(), signal.SIGILL)"
    with pytest.raises(PluginError, match=r"ends with SIGILL .* CXXFLAGS=-U__AMX_INT8__ pip install --force-reinstall"):
        check_survival((sys.executable, "-c", dying))


@pytest.mark.parametrize("code", [0, 1])
def test_an_exit_code_is_none_of_its_business(code: int) -> None:
    check_survival((sys.executable, "-c", f"raise SystemExit({code})"))


def test_the_prompt_is_read_to_its_end(registry: Registry, tmp_path: Path) -> None:
    checkpoint = pack_case(tmp_path, registry, num_hidden_layers=1)
    make(registry, tmp_path / "a.gguf").export(open_checkpoint(checkpoint), tmp_path / "a.gguf")
    subprocess.run(prompt_command(tmp_path / "a.gguf"), check=True, capture_output=True)
    require_working_amx(tmp_path / "a.gguf", system_info="AVX2 = 1 | AMX_INT8 = 1 | ")


def test_without_amx_no_process_is_started(tmp_path: Path) -> None:
    require_working_amx(tmp_path / "missing.gguf", system_info="AVX2 = 1 | ")
