"""config.json of a hub model is fetched where a preset depends on the family, and only there."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from edgerazor.cli import app
from edgerazor.core.registry import Registry
from edgerazor.errors import CheckpointError
from edgerazor.models.fetch import fetch_config
from edgerazor.schemas.recipe import load_recipe
from tests.families import family_model
from tests.hub import offline_cache

HUB = {"name_or_path": "somebody/tiny"}


@pytest.mark.parametrize(
    "content",
    [
        {"model": {**HUB, "family": "llama"}, "preset": "4-bit"},
        {"model": HUB, "quantization": {"weights": [{"match": "*", "quantizer": "ternary"}]}},
        {"model": {"name": "misspelt"}, "preset": "4-bit"},
    ],
    ids=["the family is written", "no preset", "faulty"],
)
def test_nothing_is_fetched_where_nothing_is_needed(
    content: dict[str, Any], registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    offline_cache(tmp_path, monkeypatch)
    fetch_config(content, registry=registry)


def test_a_model_that_cannot_be_fetched_is_named(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache, content = offline_cache(tmp_path / "hub", monkeypatch), {"model": HUB, "preset": "4-bit"}
    with pytest.raises(CheckpointError, match=r"somebody/tiny: no usable config.json: there is no such folder"):
        fetch_config(content, registry=registry)
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    result = CliRunner().invoke(app, ["plan", str(path)])
    assert result.exit_code == 2 and "somebody/tiny: no usable config.json" in result.output
    family_model("llama3").save_pretrained(tmp_path / "model")
    cache("somebody/tiny", "main", tmp_path / "model")
    fetch_config(content, registry=registry)
    assert load_recipe(content, registry=registry).quantization.fit
    assert CliRunner().invoke(app, ["plan", str(path)]).exit_code == 0
