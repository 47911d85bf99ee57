"""What several processes may not share is refused before weights are read, with the reason and what to take instead."""

from pathlib import Path
from typing import Any

import pytest

from edgerazor.errors import TrainingError
from edgerazor.schemas.training import TrainingSection
from edgerazor.training.parallelism import check_parallelism, check_sharding
from tests.commands import fail
from tests.runs import recipe, write_recipe

ZERO = {"zero_optimization": {"stage": 2}}
SIZES = "ACCELERATE_USE_PARALLELISM_CONFIG"
BY_THE_LAUNCHER = {
    "ACCELERATE_USE_DEEPSPEED": {"ACCELERATE_USE_DEEPSPEED": "true"},
    "ACCELERATE_USE_MEGATRON_LM": {"ACCELERATE_USE_MEGATRON_LM": "true"},
    **{
        f"PARALLELISM_CONFIG_{part}_SIZE=2": {SIZES: "true", f"PARALLELISM_CONFIG_{part}_SIZE": "2"}
        for part in ("TP", "CP", "SP")
    },
}
BY_THE_RECIPE: dict[str, dict[str, Any]] = {
    "training.deepspeed": {"deepspeed": ZERO},
    "training.extra.parallelism_config": {"extra": {"parallelism_config": {"tp_size": 2}}},
}
ALLOWED = (
    {},
    {"ACCELERATE_USE_DEEPSPEED": "false", "ACCELERATE_USE_MEGATRON_LM": "False"},
    {SIZES: "false", "PARALLELISM_CONFIG_TP_SIZE": "2"},
    {SIZES: "true", "PARALLELISM_CONFIG_TP_SIZE": "1", "PARALLELISM_CONFIG_DP_SHARD_SIZE": "2"},
)


@pytest.fixture
def without_weights(tmp_path: Path) -> dict[str, Any]:
    """A recipe whose model has lost its weights, which nobody is to miss."""
    content = recipe(tmp_path)
    (tmp_path / "model" / "model.safetensors").unlink()
    return content


@pytest.mark.parametrize("where", BY_THE_LAUNCHER)
def test_what_the_launcher_asks_for(where: str, without_weights: dict, tmp_path: Path, monkeypatch) -> None:
    for variable, value in BY_THE_LAUNCHER[where].items():
        monkeypatch.setenv(variable, value)
    said = fail("train", write_recipe(tmp_path / "r.yaml", without_weights), "--output", tmp_path / "run")
    assert f"{where}: is not supported: " in said and "DDP" in said and "fsdp_version: 2" in said
    assert len(said.strip().splitlines()) == 1 and not (tmp_path / "run").exists()


@pytest.mark.parametrize("where", BY_THE_RECIPE)
def test_what_the_recipe_asks_for(where: str, without_weights: dict, tmp_path: Path, monkeypatch) -> None:
    without_weights["training"] |= BY_THE_RECIPE[where]
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    said = fail("train", write_recipe(tmp_path / "r.yaml", without_weights), "--output", tmp_path / "run")
    assert said.startswith(f"rank 1: {where}: is not supported: ") and "fsdp_version: 2" in said
    assert len(said.strip().splitlines()) == 1 and not (tmp_path / "run").exists()


def test_all_are_named_at_once() -> None:
    environment = {name: value for values in BY_THE_LAUNCHER.values() for name, value in values.items()}
    with pytest.raises(TrainingError) as error:
        check_parallelism(TrainingSection(deepspeed=ZERO), environment)
    assert len(str(error.value).splitlines()) == 1 + len(BY_THE_LAUNCHER)


@pytest.mark.parametrize("environment", ALLOWED)
def test_whole_layers_and_sequences_are_allowed(environment: dict[str, str]) -> None:
    check_parallelism(TrainingSection(), environment)


@pytest.mark.parametrize(
    ("arguments", "environment", "right"),
    [
        (None, {}, True),
        (None, {"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2"}, True),
        (None, {"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "1"}, False),
        (None, {"ACCELERATE_USE_FSDP": "true"}, False),  # accelerate's default
        ({"fsdp_version": 2}, {}, True),
        ({"fsdp_version": 1}, {}, False),
    ],
)
def test_only_version_2_of_fsdp(arguments: dict | None, environment: dict[str, str], right: bool) -> None:
    if right:
        check_sharding(arguments, environment)
        return
    with pytest.raises(TrainingError, match=r"FSDP version 1: is not supported: .*fsdp_version: 2"):
        check_sharding(arguments, environment)
