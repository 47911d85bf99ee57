"""Whether a llama.cpp that was compiled for Intel's AMX lives through a prompt, tried in a process of its own.

GCC 12 drops stores of the tiles' configuration, so that the first product of more than a token ends the process with
an illegal instruction (https://github.com/ggml-org/llama.cpp/pull/26954). Nothing in the library says which compiler
made it.
"""

import signal
import subprocess
import sys
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import llama_cpp

from edgerazor.errors import PluginError

_PROMPT = """
import sys, llama_cpp
model = llama_cpp.Llama(sys.argv[1], n_ctx=128, n_threads=1, n_threads_batch=1, verbose=False)
model.eval([0] * 64)
"""


def require_working_amx(path: Path, system_info: str | None = None) -> None:
    """Read a prompt of 64 tokens in another process, where llama.cpp was compiled for AMX.

    Args:
        path: GGUF file. Its types of blocks decide whether AMX is used, so every file is tried, once per process.
        system_info: what llama.cpp says it was compiled for; None asks the installed one.

    Raises:
        PluginError: that process was ended by a signal; the message says how to compile llama.cpp without AMX.
    """
    if "AMX_INT8 = 1" in (system_info or llama_cpp.llama_print_system_info().decode()):
        check_survival(prompt_command(path))


def prompt_command(path: Path) -> tuple[str, ...]:
    """What reads 64 tokens of a GGUF file in a process of its own."""
    return sys.executable, "-c", _PROMPT, str(path)


@cache
def check_survival(command: Sequence[str]) -> None:
    """Run a command, whose exit code does not matter.

    Raises:
        PluginError: it was ended by a signal, such as that of an illegal instruction.
    """
    code = subprocess.run(command, capture_output=True, check=False).returncode
    if code < 0:
        raise PluginError(
            f"llama-cpp-python {llama_cpp.__version__} was compiled for AMX and ends with {signal.Signals(-code).name} "
            "on its first prompt, as builds by GCC 12 do; compile it without: CFLAGS=-U__AMX_INT8__ "
            "CXXFLAGS=-U__AMX_INT8__ pip install --force-reinstall --no-deps --no-cache-dir llama-cpp-python"
        )
