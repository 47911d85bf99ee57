"""Malformed input, each kind once, through the command line: exit code 2 and the message a person needs."""

import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from edgerazor.cli import app
from tests.runs import SIZES, preset_recipe, save_data, save_model, write_recipe

pytestmark = pytest.mark.slow

Train = Callable[..., str]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`model` and `data.jsonl`."""
    folder = tmp_path_factory.mktemp("malformed")
    save_model(folder / "model", num_hidden_layers=3)
    save_data(folder / "data.jsonl")
    return folder


def refused(*arguments: object) -> str:
    """What the command says on stderr; it must fail with exit code 2 and without a traceback."""
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    assert "Traceback" not in result.stderr
    return result.stderr.rstrip("\n")


@pytest.fixture
def train(folder: Path, tmp_path: Path) -> Train:
    """`train(**sections)`: what `edgerazor train` says to a recipe with these sections replaced."""

    def run(*, output: Path | None = None, **sections: Any) -> str:
        content = {**preset_recipe(folder / "model", folder / "data.jsonl"), **sections}
        recipe = write_recipe(tmp_path / "recipe.yaml", content)
        said = refused("train", recipe, "--output", output or tmp_path / "run")
        return said.replace(f"{recipe}: ", "")

    return run


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({"training": {"learning_rte": 1e-5}}, "training has no 'learning_rte'; did you mean 'learning_rate'?"),
        ({"quantisation": {}}, "the recipe has no 'quantisation'; did you mean 'quantization'?"),
        (
            {"quantization": {"weights": [{"match": "*", "quantizer": {"name": "ternery"}}]}},
            "quantization.weights[0].quantizer: no quantizer named 'ternery'; did you mean 'ternary'?",
        ),
        (
            {"quantization": {"weights": [{"match": "*", "quantizer": {"name": "acme.fp4"}}]}},
            "quantization.weights[0].quantizer: no quantizer named 'acme.fp4'; no plugin 'acme' is installed",
        ),
        ({"training": {"max_steps": "many"}}, "training.max_steps: expected a whole number, got 'many'"),
        ({"data": "data.jsonl"}, "data: expected keys with values, got 'data.jsonl'"),
    ],
    ids=["misspelt key", "misspelt section", "misspelt component", "absent plugin", "wrong type", "wrong form"],
)
def test_a_recipe_with_one_fault(sections: dict[str, Any], message: str, train: Train) -> None:
    where = "training: " if message.startswith("training has") else ""
    assert train(**sections) == where + message


@pytest.mark.slow
def test_a_group_size_that_does_not_divide(train: Train) -> None:
    said = train(preset={"name": "4-bit", "group_sizes": {**SIZES, "weights": 40}})
    assert "model.layers.0.self_attn.q_proj: 64 columns are not a multiple of group_size 40; 64, 32 would fit" in said
    assert "model.layers.0.mlp.down_proj: 96 columns are not a multiple of group_size 40; 96, 32 would fit" in said


def test_a_rule_that_matches_nothing(train: Train) -> None:
    rules = [
        {"match": "*.qproj", "quantizer": None},
        {"match": "*", "quantizer": {"name": "ternary", "group_size": 32}},
    ]
    said = train(quantization={"weights": rules})
    assert said.startswith("quantization.weights[0].match: '*.qproj' matches no module")


def test_files_that_are_missing(train: Train, folder: Path, tmp_path: Path) -> None:
    absent = folder / "dat.jsonl"
    assert train(data={"sources": str(absent)}) == f"{absent}: no such file or folder; did you mean 'data.jsonl'?"
    said = train(model={"name_or_path": str(folder / "absent")})
    assert said.startswith(f"{folder / 'absent'}: no usable config.json: there is no such folder")
    assert refused("train", tmp_path / "none.yaml", "--output", tmp_path / "run") == (
        f"{tmp_path / 'none.yaml'}: cannot be read: No such file or directory"
    )


@pytest.mark.parametrize("documents", [[], ["", "  "]], ids=["no rows", "no text"])
def test_data_that_is_empty(documents: list[str], train: Train, tmp_path: Path) -> None:
    path = save_data(tmp_path / "empty.jsonl", documents)
    said = train(data={"sources": str(path)})
    assert said.startswith(f"{path}: ")
    assert "empty" in said


def test_a_teacher_of_another_vocabulary(train: Train, folder: Path) -> None:
    teacher, student = save_model(folder / "teacher", vocabulary=323), folder / "model"
    assert train(model={"name_or_path": str(student), "teacher": str(teacher)}) == (
        f"teacher {teacher} and student {student} have vocabularies of 323 and 320 tokens; "
        "distillation needs the same one"
    )


def test_weights_that_are_not_finite(train: Train, tmp_path: Path) -> None:
    broken = save_model(tmp_path / "broken", num_hidden_layers=3)
    tensors = load_file(broken / "model.safetensors")
    tensors["model.layers.1.mlp.up_proj.weight"][3, 5] = math.nan
    save_file(tensors, broken / "model.safetensors", metadata={"format": "pt"})
    message = f"{broken}: model.layers.1.mlp.up_proj.weight holds NaN or infinite values"
    assert train(model={"name_or_path": str(broken)}).startswith(message)
    sizes = [f"--set=preset.group_sizes.{key}={size}" for key, size in SIZES.items()]
    said = refused("pack", broken, "--preset", "4-bit", *sizes, "--output", tmp_path / "packed")
    assert said.startswith(message)
    assert not (tmp_path / "packed").exists()


def test_a_model_whose_weights_are_cut_off(folder: Path, tmp_path: Path) -> None:
    weights = save_model(tmp_path / "cut") / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    sizes = [f"--set=preset.group_sizes.{key}={size}" for key, size in SIZES.items()]
    said = refused("pack", tmp_path / "cut", "--preset", "4-bit", *sizes, "--output", tmp_path / "packed")
    assert "incomplete metadata, file not fully covered" in said
    assert not (tmp_path / "packed").exists()


def test_an_output_that_cannot_be_written(train: Train, folder: Path) -> None:
    """A path below a file cannot be made, by nobody."""
    output = folder / "data.jsonl" / "run"
    assert train(output=output) == f"{output}: cannot be written: Not a directory"
    sizes = [f"--set=preset.group_sizes.{key}={size}" for key, size in SIZES.items()]
    said = refused("pack", folder / "model", "--preset", "4-bit", *sizes, "--output", output)
    assert said == f"{output}: cannot be written: {output.parent} is a file, not a folder"


class TestHalfWrittenCheckpoints:
    """Every command that reads a packed checkpoint refuses one that is not whole."""

    @pytest.fixture
    def packed(self, folder: Path, tmp_path: Path) -> Path:
        sizes = [f"--set=preset.group_sizes.{key}={size}" for key, size in SIZES.items()]
        arguments = ["pack", folder / "model", "--preset", "1.58-bit", *sizes, "--output", tmp_path / "packed"]
        assert CliRunner().invoke(app, [str(argument) for argument in arguments]).exit_code == 0
        return tmp_path / "packed"

    def commands(self, packed: Path) -> list[list[object]]:
        return [["verify", packed], ["generate", packed, "--prompt", "a"], ["evaluate", packed, "--data", packed]]

    def test_weights_cut_off(self, packed: Path) -> None:
        weights = packed / "model.safetensors"
        weights.write_bytes(weights.read_bytes()[:-100])
        for command in self.commands(packed):
            assert "model.safetensors" in refused(*command)

    def test_weights_changed(self, packed: Path) -> None:
        weights = packed / "model.safetensors"
        content = bytearray(weights.read_bytes())
        content[-1] ^= 0xFF
        weights.write_bytes(content)
        assert "model.safetensors" in refused("verify", packed)

    @pytest.mark.parametrize("name", ["edgerazor.json", "model.safetensors", "config.json"])
    def test_a_file_is_missing(self, name: str, packed: Path) -> None:
        (packed / name).unlink()
        for command in self.commands(packed):
            assert name in refused(*command)

    def test_no_checkpoint_at_all(self, folder: Path, tmp_path: Path) -> None:
        for command in self.commands(tmp_path / "absent"):
            assert f"{tmp_path / 'absent'}: there is no such folder" in refused(*command)
        for command in self.commands(folder / "model"):
            assert re.search("not an edgerazor checkpoint|not a finished packed checkpoint", refused(*command))
