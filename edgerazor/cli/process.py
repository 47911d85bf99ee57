"""Settings of the whole process, made by commands alone: what the library's functions do leaves a process as it was.

glibc's allocator is told to keep large blocks of memory instead of asking the system for new ones at every use. By
default blocks above 32 MiB, such as chunks of logits, are mapped afresh each time, and the system clears them page by
page: up to a quarter of a training step on a CPU (docs/benchmarks/training-speed.md).
"""

import ctypes
import os
import platform
from collections.abc import Callable

from edgerazor.errors import EdgeRazorError

SETTING = "EDGERAZOR_ALLOCATOR"
_TRIM_THRESHOLD, _TOP_PAD, _MOST_MAPPED = -1, -2, -4
_NEVER, _TOP_PAD_BYTES = -1, 64 * 2**20


def hide_progress_bars() -> None:
    """Keep the bars of transformers and the hub off the screen; heeded if neither is imported yet."""
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")


def show_one_gpu() -> None:
    """Let this process see the first GPU alone, unless the environment names others; heeded before torch uses one."""
    os.environ.setdefault("CUDA_VISIBLE_DEVICES", "0")


def ask_for_huge_pages() -> None:
    """Let torch back large tensors with huge pages; heeded if torch is not imported yet.

    Raises:
        EdgeRazorError: EDGERAZOR_ALLOCATOR is neither `keep` nor `system`.
    """
    if not _is_left_alone():
        os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")


def keep_large_blocks() -> bool:
    """Let this process use freed blocks of memory again; returns whether anything was changed.

    Nothing is where EDGERAZOR_ALLOCATOR is `system`, the environment tunes malloc itself, or malloc is not glibc's.

    Raises:
        EdgeRazorError: EDGERAZOR_ALLOCATOR is neither `keep` nor `system`.
    """
    if _is_left_alone() or platform.libc_ver()[0] != "glibc":
        return False
    mallopt: Callable[[int, int], int] = ctypes.CDLL(None).mallopt
    settings = {_MOST_MAPPED: 0, _TRIM_THRESHOLD: _NEVER, _TOP_PAD: _TOP_PAD_BYTES}
    return all(mallopt(name, value) == 1 for name, value in settings.items())


def _is_left_alone() -> bool:
    value = os.environ.get(SETTING, "keep")
    if value not in ("keep", "system"):
        raise EdgeRazorError(f"{SETTING}={value}: expected keep or system")
    tuned = any(name.startswith("MALLOC_") and name.endswith("_") for name in os.environ)
    return value == "system" or tuned or "glibc.malloc" in os.environ.get("GLIBC_TUNABLES", "")
