"""`edgerazor export` and `edgerazor verify --against`, and the same from Python and from a recipe."""

import sys
from pathlib import Path
from typing import Any

import pytest
from gguf_cases import Packed
from typer.testing import CliRunner

from edgerazor.cli import app
from edgerazor.core.registry import Registry
from edgerazor.errors import CheckpointError, ExportError, PluginError
from edgerazor.export.export import export_checkpoint, export_to, verify_export

CASE = "qwen3 1.88-bit g128 untied"


def invoke(*arguments: object) -> Any:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def fail(*arguments: object) -> str:
    result = invoke(*arguments)
    assert result.exit_code == 2, result.output
    return str(result.stderr)


@pytest.mark.slow
def test_export_and_verify(packed: Packed, tmp_path: Path) -> None:
    folder, path = packed(CASE).folder, tmp_path / "model.gguf"
    result = invoke("export", folder, "--to", "gguf", "--output", path, "--set", "profile=size")
    assert result.exit_code == 0, result.output
    assert f"exported {path}: " in result.stdout and "verified" in result.stdout
    assert "nominal 1.88 bits, in this file 4.50" in result.stdout.splitlines()[-1]
    result = invoke("verify", path, "--against", folder)
    assert result.exit_code == 0 and result.stdout.startswith(f"{path}: ok, ")
    # Known by its content, whatever it is called.
    path.rename(tmp_path / "renamed")
    assert invoke("verify", tmp_path / "renamed", "--against", folder).exit_code == 0
    other = packed("qwen3 4-bit g32 tied").folder
    assert "lm_head.weight" not in fail("verify", tmp_path / "renamed", "--against", other).splitlines()[0]


def test_messages(packed: Packed, tmp_path: Path) -> None:
    folder, path = packed(CASE).folder, tmp_path / "model.gguf"
    export = ["export", folder, "--to", "gguf", "--output", path]
    assert "no exporter named 'ggf'; did you mean 'gguf'?" in fail("export", folder, "--to", "ggf", "--output", path)
    assert fail(*export, "--set", "profil=size") == "--set: exporter 'gguf' has no 'profil'; did you mean 'profile'?\n"
    assert "--set profile: expected 'size', 'speed_cpu' or 'compatible', got 'tiny'" in fail(
        *export, "--set", "profile=tiny"
    ).replace("--set: profile", "--set profile")
    assert "expected key.path=value" in fail(*export, "--set", "profile")
    assert "mixed_rows is 'error'" in fail(*export, "--set", "mixed_rows=error")
    assert "types[0] match '*.x' fits no tensor" in fail(*export, "--set", "types=[{match: '*.x', type: Q4_0}]")
    assert list(tmp_path.iterdir()) == []
    assert "there is no such file" in fail("verify", path, "--against", folder)
    path.write_text("text")
    assert "is no GGUF file" in fail("verify", path, "--against", folder)
    assert "--against CHECKPOINT" in fail("verify", path)
    path.rename(tmp_path / "notes.txt")
    assert "no exporter knows this kind of file" in fail("verify", tmp_path / "notes.txt", "--against", folder)


@pytest.mark.parametrize("asked", [["--to"], [], ["--to", "--output", "x"], ["--output", "x", "--to"]])
def test_without_a_name_it_says_which_exporter_suits_what(asked: list[str], registry: Registry) -> None:
    first, *lines = fail("export", "folder", *asked).splitlines()
    assert first == "--to needs the name of an exporter:"
    said = dict(line.split(maxsplit=1) for line in lines)
    assert {"gguf", "onnx", "compressed-tensors", "mlx"} <= said.keys() == set(registry.names("exporter"))
    assert "llama.cpp" in said["gguf"] and "Apple" in said["mlx"] and "vLLM" in said["compressed-tensors"]


def test_an_output_is_asked_for_with_the_exporter() -> None:
    assert fail("export", "folder", "--to", "gguf") == "--output is missing: where gguf shall write to\n"


def test_checkpoints_that_are_none(packed: Packed, registry: Registry, tmp_path: Path) -> None:
    source = packed(CASE).folder.parent / "float"
    with pytest.raises(CheckpointError, match="this is not an edgerazor checkpoint"):
        export_to(source, "gguf", tmp_path / "a.gguf", registry=registry)
    with pytest.raises(CheckpointError, match="there is no such folder"):
        verify_export(packed(CASE).folder / "config.json", tmp_path / "absent", registry=registry, name="gguf")
    assert list(tmp_path.iterdir()) == []


def test_without_the_package_the_error_names_the_extra(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gguf", None)
    for name in ("exporter", "write", "header"):
        monkeypatch.delitem(sys.modules, f"edgerazor.plugins.exporters.gguf.{name}", raising=False)
    with pytest.raises(PluginError, match=r"the package gguf is not installed: run pip install '\.\[gguf\]'"):
        registry.build(registry.params("exporter", "gguf", path="a.gguf"))


def test_errors_of_a_recipe_say_which_export(packed: Packed, registry: Registry, tmp_path: Path) -> None:
    exporter = registry.build(registry.params("exporter", "gguf", path=str(tmp_path / "a.gguf"), mixed_rows="error"))
    with pytest.raises(ExportError, match=r"^export\[0\]: 14 tensors mix"):
        export_checkpoint(packed(CASE).folder, exporter, registry=registry, where="export[0]")
