"""A llama.cpp that ends the process is an error with a way out, not a silent end of ours."""

import sys

import pytest

pytest.importorskip("llama_cpp")
pytestmark = [pytest.mark.llamacpp, pytest.mark.subprocess]


def test_a_signal_in_the_trial_is_an_error_that_says_what_to_do() -> None:
    from edgerazor.errors import PluginError
    from edgerazor.plugins.exporters.gguf.amx import require_end

    dying = "import os, signal; os.kill(os.getpid(), signal.SIGILL)"
    with pytest.raises(PluginError, match=r"ends with SIGILL .* CXXFLAGS=-U__AMX_INT8__ pip install --force-reinstall"):
        require_end((sys.executable, "-c", dying))


@pytest.mark.parametrize("code", [0, 1])
def test_an_end_of_its_own_is_none_of_its_business(code: int) -> None:
    from edgerazor.plugins.exporters.gguf.amx import require_end

    require_end((sys.executable, "-c", f"raise SystemExit({code})"))
