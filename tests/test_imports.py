"""What importing costs: no heavy library before a command needs it; and what the package offers."""

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import edgerazor

HEAVY = ("torch", "transformers", "triton", "onnx", "onnxruntime", "onnx_ir", "gguf", "datasets", "numpy")
COMMAND = "import edgerazor.cli\ntry: edgerazor.cli.main({})\nexcept SystemExit: pass"
STATEMENTS = {
    "the package": "import edgerazor",
    "all plugins": "import edgerazor; edgerazor.load_plugins()",
    "a recipe": (
        "import edgerazor; edgerazor.load_recipe({'model': {'name_or_path': 'x', 'family': 'qwen3'}, "
        "'preset': '1.88-bit'}, registry=edgerazor.load_plugins())"
    ),
    "the command line": "import edgerazor.cli",
    "help": COMMAND.format(["train", "--help"]),
    "a command about recipes": COMMAND.format(["plugins"]),
    "a conversion": COMMAND.format(["convert-recipe", "absent.yaml"]),
    "a recipe with a fault": COMMAND.format(["check", "absent.yaml"]),
}


@pytest.mark.subprocess
@pytest.mark.parametrize("statement", STATEMENTS.values(), ids=STATEMENTS.keys())
def test_nothing_heavy_is_imported(statement: str) -> None:
    code = f"import sys\n{statement}\nprint('heavy:', [name for name in {HEAVY!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "heavy: []"


@pytest.mark.subprocess
def test_importing_the_package_imports_no_part_of_it() -> None:
    code = "import sys, edgerazor; print([name for name in sys.modules if name.startswith('edgerazor.')])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_there_are_few_public_names() -> None:
    """Base classes for plugin authors, parameters to declare them by, and one function for each thing a user does."""
    assert len(edgerazor.__all__) <= 35
    assert dir(edgerazor) == sorted(edgerazor.__all__)


@pytest.mark.parametrize("name", edgerazor.__all__)
def test_every_public_name_resolves_and_is_documented(name: str) -> None:
    value = getattr(edgerazor, name)
    assert name in {"__version__", "hookimpl"} or value.__doc__


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'edgerazor' has no attribute 'quantise'"):
        _ = edgerazor.quantise


def test_the_version_is_that_of_the_project_file() -> None:
    project = tomllib.loads((Path(__file__).parent.parent / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert edgerazor.__version__ == project["version"]
