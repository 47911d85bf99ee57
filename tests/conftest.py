"""How tests are run: in which order, with which settings, and which of them may start another Python."""

import gc
import os
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

# The tensors here are tiny: threads that wait for each other would cost more than they give. torch reads this once.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# As the command does before it imports transformers, which reads it once: tests run commands inside this process.
os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")

from tests.processes import other_pythons, watch_processes

settings.register_profile("edgerazor", deadline=None, derandomize=True, max_examples=5, database=None)
settings.load_profile("edgerazor")
watch_processes()


def pytest_configure(config: pytest.Config) -> None:
    """The process that hands out tests to others runs none, and need not import torch while these do."""
    if hasattr(config, "workerinput") or not getattr(config.option, "numprocesses", None):
        gc.disable()  # until all is imported and collected: it would search ever more and find nothing
        config.pluginmanager.import_plugin("tests.fixtures")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files that take long come first, so that at the end no worker waits for another."""
    marks = ("subprocess", "slow")
    rank: dict[Path, int] = {}
    for item in items:
        own = next((place for place, mark in enumerate(marks) if item.get_closest_marker(mark)), len(marks))
        rank[item.path] = min(rank.get(item.path, own), own)
    items.sort(key=lambda item: rank[item.path])


def pytest_collection_finish() -> None:
    """What was imported stays to the end; a garbage collection, of which every training run asks several, skips it."""
    gc.collect()
    gc.freeze()
    gc.enable()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, Any, Any]:
    """A test and the fixtures made for it start another Python only if it is marked so."""
    with other_pythons(allowed=item.get_closest_marker("subprocess") is not None):
        return (yield)
