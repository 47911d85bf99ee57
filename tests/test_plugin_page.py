"""The page about plugins: its files make a package, its commands run, and it names every law."""

import os
import re
import site
import subprocess
import venv
from pathlib import Path

import pytest

from edgerazor.testing import adapter, exporter, loss, quantizer, selector
from edgerazor.testing.laws import law_name

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "guide" / "plugins.md").read_text(encoding="utf-8")
BLOCK = re.compile(r"```(\w+)\n(.*?)```", re.DOTALL)
LAWS = [law for module in (quantizer, loss, selector, adapter, exporter) for law in module.LAWS]


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """Variables of an environment of its own, in which what is installed here can be imported; no network."""
    folder = tmp_path / "environment"
    venv.create(folder, symlinks=True)
    (own,) = folder.glob("lib/python*/site-packages")
    shared = [str(ROOT), *site.getsitepackages()]
    (own / "shared.pth").write_text("".join(f"{path}\n" for path in shared))
    offline = {
        "PIP_NO_INDEX": "1",
        "PIP_NO_DEPS": "1",
        "PIP_NO_BUILD_ISOLATION": "0",
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
    }
    kept = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    path = os.pathsep.join([str(folder / "bin"), kept["PATH"]])
    return {**kept, **offline, "PATH": path, "OMP_NUM_THREADS": "1", "COLUMNS": "200"}


@pytest.mark.subprocess
def test_files_and_commands_of_the_page_are_a_package(tmp_path: Path, environment: dict[str, str]) -> None:
    package, printed = tmp_path / "package", ""
    for language, text in BLOCK.findall(PAGE):
        named = re.match(r"# ([\w/]+\.\w+)\n", text)
        if named:
            (package / named[1]).parent.mkdir(parents=True, exist_ok=True)
            (package / named[1]).write_text(text, encoding="utf-8")
        else:
            assert language == "sh", f"this block is neither a file nor a command:\n{text}"
            command = ["bash", "-euo", "pipefail", "-c", text]
            done = subprocess.run(command, cwd=package, env=environment, capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stdout + done.stderr
            printed += done.stdout
    assert "quantizer: acme.shift; loss: acme.logit_mse; selector: acme.last; exporter: acme.plain" in printed
    assert "5 passed" in printed


@pytest.mark.parametrize("law", LAWS, ids=law_name)
def test_every_law_is_on_the_page(law: object) -> None:
    assert f"| {law_name(law)} |" in PAGE


def test_the_page_names_no_law_that_is_none() -> None:
    rows = re.findall(r"^\| ([a-z][a-z ]+) \|", PAGE, re.MULTILINE)
    assert set(rows) == {law_name(law) for law in LAWS}
