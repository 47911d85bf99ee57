"""Packed checkpoints that several tests export; each is made once."""

from pathlib import Path

import pytest
from gguf_cases import CASES, Packed, pack_case

from edgerazor.checkpoint import PackedCheckpoint, open_checkpoint
from edgerazor.core.registry import Registry


@pytest.fixture(scope="session", autouse=True)
def _faster_exports(onnx_operators: None) -> None: ...


@pytest.fixture(scope="session")
def packed(registry: Registry, tmp_path_factory: pytest.TempPathFactory) -> Packed:
    """`packed(case)`: an opened checkpoint; read only."""
    folders: dict[str, Path] = {}

    def make(case: str) -> PackedCheckpoint:
        if case not in folders:
            folders[case] = pack_case(tmp_path_factory.mktemp("case"), registry, **CASES[case])
        return open_checkpoint(folders[case], registry=registry)

    return make
