"""The longer version of these tests, by hand: python -m tests.faults.campaign --kills 50 --damages 1000 --fills 50."""

import argparse
import os
import sys
from pathlib import Path

import pytest

KILLS, DAMAGES, FILLS = "EDGERAZOR_TEST_KILLS", "EDGERAZOR_TEST_DAMAGES", "EDGERAZOR_TEST_FILLS"


def kills() -> int:
    """How often each command is killed."""
    return int(os.environ.get(KILLS, "1"))


def damages() -> int:
    """How often the files of each kind are damaged."""
    return int(os.environ.get(DAMAGES, "15"))


def fills() -> int:
    """How often the disk of each command is full."""
    return int(os.environ.get(FILLS, "1"))


def main() -> int:
    """Run the tests of this folder with other numbers."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--damages", type=int, default=1000)
    parser.add_argument("--fills", type=int, default=50)
    arguments = parser.parse_args()
    os.environ |= {KILLS: str(arguments.kills), DAMAGES: str(arguments.damages), FILLS: str(arguments.fills)}
    return int(pytest.main(["-q", str(Path(__file__).parent)]))


if __name__ == "__main__":
    sys.exit(main())
