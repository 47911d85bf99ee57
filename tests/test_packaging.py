"""What the project file declares is what the code imports, and the wheel holds every file the package reads."""

import ast
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from functools import cache
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

from edgerazor import __version__
from edgerazor.errors import install_hint

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "edgerazor"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS = PROJECT["optional-dependencies"]
# Folders whose modules may import more than every installation has, and the extras that bring it.
EXTRAS_OF = {
    "plugins/exporters/gguf": ["gguf", "llamacpp"],
    "plugins/exporters/compressed_tensors": ["compressed-tensors"],
    "plugins/exporters/mlx": ["mlx"],
    "plugins/exporters/onnx": ["onnx", "genai"],
    "data/images": ["images"],
    "models/image_processor.py": ["images"],
    "evaluate/tasks": ["eval"],
    "evaluate/videos": ["video"],
    "kernels/triton": ["triton"],
    "quickstart": ["llamacpp-prebuilt"],
    "report": ["report"],
    "serve": ["serve"],
    "testing": ["testing"],
}
FOR_WORK_ON_THE_PACKAGE = {"test", "browser", "dev", "docs", "demo"}
# Declared for other reasons than an import of ours.
NOT_IMPORTED = {
    "onnx": "onnx-ir and onnxscript write files through it",
}
# llama.cpp is not installed everywhere, and its module is named otherwise.
DISTRIBUTIONS = {"llama_cpp": ["llama-cpp-python"], **packages_distributions()}


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def names(requirements: list[str]) -> set[str]:
    """Names of distributions, normalized, without versions, extras and markers."""
    return {normal(re.match(r"[\w.-]+", requirement)[0]) for requirement in requirements}


@cache
def imported(path: Path) -> set[str]:
    """Top-level modules outside the standard library and outside this package that a file imports, anywhere in it."""
    modules: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            modules |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            modules.add(node.module)
    return {module.split(".")[0] for module in modules} - sys.stdlib_module_names - {"edgerazor"}


def declared_for(path: Path) -> set[str]:
    place = path.relative_to(PACKAGE).as_posix()
    extras = [extra for folder, its in EXTRAS_OF.items() if f"{place}/".startswith(f"{folder}/") for extra in its]
    return names(PROJECT["dependencies"]) | {name for extra in extras for name in names(EXTRAS[extra])}


def distributions(module: str) -> set[str]:
    """Who may have installed a module; its own name where it is not installed here."""
    return {normal(name) for name in DISTRIBUTIONS.get(module, [module])}


def test_what_a_module_imports_is_declared() -> None:
    for path in PACKAGE.rglob("*.py"):
        for module in imported(path):
            assert distributions(module) & declared_for(path), f"{module} is in no dependency or extra for {path}"


def test_what_is_declared_is_imported() -> None:
    used = {name for path in PACKAGE.rglob("*.py") for module in imported(path) for name in distributions(module)}
    runtime = [EXTRAS[extra] for extra in EXTRAS.keys() - FOR_WORK_ON_THE_PACKAGE]
    declared = names(PROJECT["dependencies"]).union(*map(names, runtime))
    assert declared - used == set(NOT_IMPORTED)


def test_every_extra_has_a_reader() -> None:
    assert {extra for its in EXTRAS_OF.values() for extra in its} == EXTRAS.keys() - FOR_WORK_ON_THE_PACKAGE


def test_no_hint_installs_from_the_package_index() -> None:
    """There, the name belongs to the original release."""
    pages = [
        *ROOT.glob("*.md"),
        *(ROOT / "docs").rglob("*.md"),
        *(ROOT / "examples").rglob("*.md"),
        *PACKAGE.rglob("*.py"),
    ]
    for path in pages:
        for line in path.read_text(encoding="utf-8").splitlines():
            assert not re.search(r"pip install[^#]*\s'?edgerazor(\[|\s|'|`|$)", line), f"{path}: {line.strip()}"


@pytest.mark.parametrize("extra", sorted(EXTRAS))
def test_a_hint_names_the_repository_the_wheel_and_what_the_index_holds(extra: str) -> None:
    hint = install_hint(extra)
    assert f"pip install '.[{extra}]'" in hint and f"edgerazor-{__version__}-py3-none-any.whl[{extra}]" in hint
    assert "original release" in hint


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built by the project's own backend from a copy, so that no build folder is left beside the sources."""
    tree = tmp_path_factory.mktemp("tree")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tree / name)
    shutil.copytree(PACKAGE, tree / "edgerazor", ignore=shutil.ignore_patterns("__pycache__"))
    build = "from setuptools import build_meta; print(build_meta.build_wheel('.'))"
    done = subprocess.run([sys.executable, "-c", build], cwd=tree, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return tree / done.stdout.strip().splitlines()[-1]


@pytest.mark.subprocess
def test_the_wheel_holds_every_file_of_the_package_and_nothing_else(wheel: Path) -> None:
    assert wheel.name == f"edgerazor-{__version__}-py3-none-any.whl"
    files = {path for path in PACKAGE.rglob("*") if path.is_file() and "__pycache__" not in path.parts}
    with zipfile.ZipFile(wheel) as archive:
        packed = {name for name in archive.namelist() if ".dist-info/" not in name}
        metadata = archive.read(f"edgerazor-{__version__}.dist-info/METADATA").decode()
    assert packed == {path.relative_to(ROOT).as_posix() for path in files}
    assert "License-Expression: Apache-2.0" in metadata
