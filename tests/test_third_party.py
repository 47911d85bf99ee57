"""A package written against the public contract alone, installed by pip and named in a recipe."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from edgerazor.cli import app
from tests.pipeline.runs import preset_recipe, save_data, save_model, write_recipe

SOURCE = Path(__file__).parent / "plugin_fixture"
QUANTIZATION = {
    "weights": [
        {"match": ["*.embed_tokens", "lm_head"], "quantizer": {"name": "int", "bits": 4, "group_size": 32}},
        {"match": "*", "quantizer": {"name": "tiny.binary", "group_size": 32, "shrink": 0.5}},
    ]
}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that holds the installed package."""
    folder = tmp_path_factory.mktemp("third_party")
    shutil.copytree(SOURCE, folder / "source", ignore=shutil.ignore_patterns("__pycache__"))
    offline = ["--no-deps", "--no-build-isolation", "--no-index", "--quiet", "--disable-pip-version-check"]
    install = [sys.executable, "-m", "pip", "install", *offline, "--target", folder / "site", folder / "source"]
    subprocess.run(install, check=True)
    return folder / "site"


def edgerazor(site: Path, *arguments: object) -> str:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "200"}
    environment["PYTHONPATH"] = os.pathsep.join([str(site), str(SOURCE.parent.parent)])
    command = [sys.executable, "-m", "edgerazor", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_it_is_listed_and_in_the_schema(site: Path) -> None:
    row = next(line for line in edgerazor(site, "plugins").splitlines() if line.startswith("tiny "))
    assert "0.3.0" in row and "quantizer: tiny.binary; loss: tiny.l1" in row and row.rstrip().endswith("ok")
    definitions = json.loads(edgerazor(site, "schema"))["$defs"]
    assert definitions["quantizer.tiny.binary"]["properties"]["shrink"]["type"] == "number"


def test_a_recipe_trains_with_its_quantizer_and_loss(
    site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(site))
    content = preset_recipe(
        save_model(tmp_path / "model", num_hidden_layers=3),
        save_data(tmp_path / "data.jsonl"),
        quantization=QUANTIZATION,
        distillation={"losses": [{"name": "tiny.l1", "weight": 0.5}, {"name": "eakld"}]},
    )
    del content["preset"]
    recipe = write_recipe(tmp_path / "recipe.yaml", content)
    result = CliRunner().invoke(app, ["train", str(recipe), "--output", str(tmp_path / "run")])
    assert result.exit_code == 0, result.output
    assert "tiny: 0.3.0" in (tmp_path / "run" / "recipe.yaml").read_text(encoding="utf-8")
    history = json.loads((tmp_path / "run" / "metrics.json").read_text(encoding="utf-8"))["history"]
    assert all(entry["tiny.l1"] > 0 for entry in history if "loss" in entry)
    assert (tmp_path / "run" / "packed" / "model.safetensors").exists()
