"""A run that was trained for a few steps, with layers chosen by LAFD."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("matplotlib", reason="needs the extra report")

from tests.commands import succeed
from tests.runs import recipe, write_recipe

LOSSES = [
    {"name": "eakld", "weight": 2.0, "scope": "sequence"},
    {"name": "feature_mse", "weight": 0.1, "layers": {"name": "lafd", "top_k": 1}},
]


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run of six steps that saved at the fourth; nobody may change it."""
    folder = tmp_path_factory.mktemp("report")
    steps = {"max_steps": 6, "save_steps": 4, "save_strategy": "steps"}
    content = recipe(folder, distillation={"losses": LOSSES}, training=steps)
    succeed("train", write_recipe(folder / "recipe.yaml", content), "--output", folder / "run")
    return folder / "run"


@pytest.fixture
def copied(trained: Path, tmp_path: Path) -> Callable[..., Path]:
    """Copies the run without some of its parts."""

    def copy(name: str, *without: str) -> Path:
        return shutil.copytree(trained, tmp_path / name, ignore=shutil.ignore_patterns(*without))

    return copy
