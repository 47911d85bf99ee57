"""The example plugin, written against the public contract alone: installed by pip, tested by its own tests, used."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from transformers import Exaone4Config, Exaone4ForCausalLM
from typer.testing import CliRunner

import edgerazor
from edgerazor.checkpoint import load_model
from edgerazor.cli import app
from edgerazor.inference.open_runtime import open_runtime
from tests.runs import preset_recipe, save_data, save_model, tokenizer, write_recipe

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
        "quantizer: acme.fp4; loss: acme.total_variation; selector: acme.every_nth; adapter: acme.exaone4; "
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


def save_exaone4(folder: Path) -> Path:
    """A random EXAONE 4 with two layers of width 64, norms included, and its tokenizer."""
    words = tokenizer()
    sizes = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "max_position_embeddings": 128}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "initializer_range": 0.2}
    layers = {"sliding_window": None, "layer_types": ["full_attention"] * 2, "bos_token_id": None}
    special = {"eos_token_id": words.eos_token_id, "pad_token_id": words.pad_token_id, "vocab_size": len(words)}
    torch.manual_seed(0)
    model = Exaone4ForCausalLM(Exaone4Config(**sizes, **heads, **layers, **special))  # type: ignore[arg-type]
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.add_(0.2 * torch.randn_like(parameter))
    model.to(torch.bfloat16).save_pretrained(folder)  # type: ignore[call-arg]
    words.save_pretrained(folder)
    return folder


# llama.cpp rounds what a quantized matrix is multiplied with to int8, beside a bfloat16 one to bfloat16 (2**-9).
ENGINES = {"every matrix": ("*", 6e-2), "the embedding alone": ("*.embed_tokens", 1e-2)}


@pytest.mark.slow
@pytest.mark.llamacpp
@pytest.mark.parametrize("quantized", ENGINES)
def test_its_family_trains_and_runs_in_both_engines(
    quantized: str, site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Facts are all that the exporters know of EXAONE 4; logits are those of the class of transformers."""
    pytest.importorskip("llama_cpp")
    pytest.importorskip("onnxruntime")
    monkeypatch.syspath_prepend(str(site))
    match, tolerance = ENGINES[quantized]
    tolerances = {"model.gguf": tolerance, "model.onnx": 1e-4}
    content = preset_recipe(
        save_exaone4(tmp_path / "model"),
        save_data(tmp_path / "data.jsonl"),
        quantization={"weights": [{"match": match, "quantizer": {"name": "int", "bits": 4, "group_size": 32}}]},
        distillation={"losses": [{"name": "eakld"}]},
        export=[
            {"name": "gguf", "path": str(tmp_path / "model.gguf")},
            {"name": "onnx", "path": str(tmp_path / "model.onnx"), "accuracy_level": 0},
        ],
    )
    del content["preset"]
    recipe = write_recipe(tmp_path / "recipe.yaml", content)
    result = CliRunner().invoke(app, ["train", str(recipe), "--output", str(tmp_path / "run")])
    assert result.exit_code == 0, result.output
    model = load_model(tmp_path / "run" / "packed", dtype=torch.float32)
    assert isinstance(model, Exaone4ForCausalLM)
    for name, allowed in tolerances.items():
        runtime = open_runtime(tmp_path / name, registry=edgerazor.load_plugins())
        ids = runtime.encode("def f7(x):\n    return x * 7 + len('word3')\n")
        with torch.no_grad():
            expected = model(input_ids=torch.tensor([ids])).logits[0]
        found = torch.as_tensor(runtime.feed(ids, every=True)).float()
        runtime.close()
        assert found.shape == expected.shape and len(ids) > 10
        error = float((found - expected).norm() / expected.norm())
        assert error < allowed, name
