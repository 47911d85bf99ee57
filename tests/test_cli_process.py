"""Large blocks are used again instead of being mapped, and cleared, anew."""

import os
import platform
import subprocess
import sys

import pytest

PROGRAM = """
import resource
from edgerazor.cli.process import ask_for_huge_pages, keep_large_blocks
ask_for_huge_pages()
changed = keep_large_blocks()
import torch
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
torch.ones(2**24)
before = faults()
for _ in range(4):
    torch.ones(2**24)
print(changed, (faults() - before) // 4)
"""


def run(**settings: str) -> tuple[str, int]:
    """What `keep_large_blocks` returned, and page faults per tensor of 64 MiB."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("MALLOC_", "THP_", "GLIBC_"))}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], env={**kept, **settings}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    changed, faults = done.stdout.split()
    return changed, int(faults)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library than glibc")
@pytest.mark.subprocess
def test_large_blocks_are_used_again() -> None:
    changed, faults = run()
    assert changed == "True" and faults < 1000
    left, more = run(EDGERAZOR_ALLOCATOR="system")
    assert left == "False" and more > 10_000
    assert run(MALLOC_TOP_PAD_="0") == ("False", pytest.approx(more, rel=0.1))


@pytest.mark.subprocess
def test_another_value_is_an_error() -> None:
    with pytest.raises(AssertionError, match="EDGERAZOR_ALLOCATOR=fast: expected keep or system"):
        run(EDGERAZOR_ALLOCATOR="fast")
