"""The example plugin, written against the public contract alone: installed by pip, tested by its own tests, used."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from edgerazor.cli import app
from tests.runs import preset_recipe, save_data, save_model, write_recipe

pytestmark = pytest.mark.subprocess

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "examples" / "acme-edgerazor"
QUANTIZATION = {
    "weights": [
        {"match": ["*.embed_tokens", "lm_head"], "quantizer": {"name": "int", "bits": 4, "group_size": 32}},
        {"match": "*", "quantizer": {"name": "acme.fp4", "group_size": 16}},
    ],
    "activations": {"name": "acme.fp4", "group_size": 32},
}
LOSSES = [
    {"name": "acme.total_variation", "weight": 0.5},
    {"name": "feature_mse", "layers": {"name": "acme.every_nth", "n": 2}},
]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that holds the installed package."""
    folder = tmp_path_factory.mktemp("third_party")
    shutil.copytree(SOURCE, folder / "source", ignore=shutil.ignore_patterns("__pycache__", "*.egg-info", "build"))
    offline = ["--no-deps", "--no-build-isolation", "--no-index", "--quiet", "--disable-pip-version-check"]
    install = [sys.executable, "-m", "pip", "install", *offline, "--target", folder / "site", folder / "source"]
    subprocess.run(install, check=True)
    return folder / "site"


def python(site: Path, *arguments: object, folder: Path = ROOT) -> str:
    """What a Python that has the package installed prints."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "200"}
    environment["PYTHONPATH"] = os.pathsep.join([str(site), str(ROOT)])
    command = [sys.executable, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=folder, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_its_own_tests_pass(site: Path) -> None:
    printed = python(site, "-m", "pytest", "-p", "no:cacheprovider", folder=site.parent / "source")
    assert " passed" in printed and "skipped" not in printed


def test_it_is_listed_and_in_the_schema(site: Path) -> None:
    row = next(line for line in python(site, "-m", "edgerazor", "plugins").splitlines() if line.startswith("acme "))
    named = (
        "quantizer: acme.fp4; loss: acme.total_variation; selector: acme.every_nth; adapter: acme.olmo2; "
        "exporter: acme.npz"
    )
    assert "1.2.0" in row and named in row and row.rstrip().endswith("ok")
    definitions = json.loads(python(site, "-m", "edgerazor", "schema"))["$defs"]
    assert definitions["selector.acme.every_nth"]["properties"]["n"]["minimum"] == 1


def test_declaring_it_imports_nothing_heavy(site: Path) -> None:
    code = "import sys, edgerazor; edgerazor.load_plugins(); print([x for x in ('torch', 'numpy') if x in sys.modules])"
    assert python(site, "-c", code).strip() == "[]"


def test_a_recipe_trains_and_exports_with_its_components(
    site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(site))
    content = preset_recipe(
        save_model(tmp_path / "model", num_hidden_layers=3),
        save_data(tmp_path / "data.jsonl"),
        quantization=QUANTIZATION,
        distillation={"losses": LOSSES},
        export=[{"name": "acme.npz", "path": str(tmp_path / "model.npz")}],
    )
    del content["preset"]
    recipe = write_recipe(tmp_path / "recipe.yaml", content)
    result = CliRunner().invoke(app, ["train", str(recipe), "--output", str(tmp_path / "run")])
    assert result.exit_code == 0, result.output
    assert "acme: 1.2.0" in (tmp_path / "run" / "recipe.yaml").read_text(encoding="utf-8")
    history = json.loads((tmp_path / "run" / "metrics.json").read_text(encoding="utf-8"))["history"]
    steps = [entry for entry in history if "loss" in entry]
    assert all(0 < entry["acme.total_variation"] < 0.5 for entry in steps)
    assert all(entry["feature_mse/chosen_1"] == entry["feature_mse/chosen_3"] == 1 for entry in steps)
    verified = CliRunner().invoke(
        app, ["verify", str(tmp_path / "model.npz"), "--against", str(tmp_path / "run/packed")]
    )
    assert verified.exit_code == 0, verified.output
