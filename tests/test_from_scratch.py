"""The example program runs from start to end; a component takes the files that CONTRIBUTING names and no others."""

import ast
import re
from pathlib import Path

import pytest

import edgerazor
from tests.forked_commands import run_program

ROOT = Path(__file__).parents[1]
PROGRAM = ROOT / "examples" / "from_scratch.py"
ACME = ROOT / "examples" / "acme-edgerazor"


@pytest.mark.subprocess
def test_the_whole_path(tmp_path: Path) -> None:
    said = run_program(PROGRAM, tmp_path / "all", "--steps", "8", folder=tmp_path)
    losses = dict(re.findall(r"^(rounded|distilled): held-out loss ([\d.]+)", said, re.MULTILINE))
    assert float(losses["distilled"]) < float(losses["rounded"])
    assert re.search(r"^plan: .*% of the parameters at 2\.\d+ bits", said, re.MULTILINE)
    assert (tmp_path / "all" / "model.gguf").stat().st_size > 400_000


def test_it_uses_public_names_alone_and_stays_short() -> None:
    tree = ast.parse(PROGRAM.read_text(encoding="utf-8"))
    attributes = [node for node in ast.walk(tree) if isinstance(node, ast.Attribute)]
    used = {node.attr for node in attributes if isinstance(node.value, ast.Name) and node.value.id == "edgerazor"}
    assert used and used <= set(edgerazor.__all__)
    imported = [node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    assert not [module for module in imported if module.startswith("edgerazor")]
    assert len(PROGRAM.read_text(encoding="utf-8").splitlines()) <= 90


def test_a_component_takes_the_files_that_contributing_names_and_no_others() -> None:
    named = set(re.findall(r"`(acme_edgerazor/\w+\.py)`", (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")))
    shared = {"pyproject.toml", "README.md", "acme_edgerazor/__init__.py", "acme_edgerazor/params.py"}
    listed = files_below(ACME)
    assert {name for name in listed if not name.startswith("tests/")} == named | shared


def test_nothing_of_ours_names_a_component_of_the_example() -> None:
    names = re.compile(r"acme[._](?:fp4|total_variation|every_nth|exaone4|npz|edgerazor)|exaone", re.IGNORECASE)
    files = [path for path in (ROOT / "edgerazor").rglob("*.py") if names.search(path.read_text(encoding="utf-8"))]
    assert not files


def files_below(folder: Path) -> set[str]:
    """Files below a folder, without what Python and pip leave there."""
    files = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    left = ("__pycache__", "build", "acme_edgerazor.egg-info", ".pytest_cache", ".hypothesis")
    return {path.as_posix() for path in files if not set(path.parts) & set(left)}
