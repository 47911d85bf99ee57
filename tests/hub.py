"""A hub that cannot be reached, and what of it is in the cache of this machine."""

import shutil
from collections.abc import Callable
from pathlib import Path

import huggingface_hub.constants
import pytest

Cache = Callable[[str, str, Path], None]


def offline_cache(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Cache:
    """`cache(name, revision, model)`: from then on the hub model `name` is there, at that revision alone."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(folder))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)

    def cache(name: str, revision: str, model: Path) -> None:
        place = folder / f"models--{name.replace('/', '--')}"
        commit = f"{len(list(place.glob('snapshots/*'))):040x}"
        shutil.copytree(model, place / "snapshots" / commit)
        (place / "refs").mkdir(exist_ok=True)
        (place / "refs" / revision).write_text(commit)

    return cache
