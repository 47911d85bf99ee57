"""Every block of code that a user may copy from README and docs is loaded or run."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from edgerazor.schemas.recipe import load_recipe
from tests.commands import succeed
from tests.forked_commands import run_program
from tests.runs import recipe

ROOT = Path(__file__).parents[1]
PLUGIN_PAGE = ROOT / "docs" / "guide" / "plugins.md"
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("[!d]*/*.md"))]  # design pages show fragments
LINKING = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md")), *sorted(ROOT.glob("e*/*/*.md"))]
BLOCK = re.compile(r"```(\w+)\n(.*?)```", re.DOTALL)


def blocks(language: str, pages: list[Path] = PAGES) -> list[tuple[str, str]]:
    """(page and number, text) of every fenced block in a language."""
    return [
        (f"{page.name}-{index}", text)
        for page in pages
        for index, (name, text) in enumerate(BLOCK.findall(page.read_text(encoding="utf-8")))
        if name == language
    ]


@pytest.mark.parametrize("text", [pytest.param(text, id=name) for name, text in blocks("yaml")])
def test_every_recipe_loads(text, registry):
    content = yaml.safe_load(text)
    if "quantization" not in content and "preset" not in content:
        content["preset"] = {"name": "4-bit", "group_sizes": {"weights": 64, "activations": 64, "kv_cache": 64}}
    load_recipe(content, registry=registry)


@pytest.mark.subprocess
def test_the_python_example_runs(tmp_path):
    (example,) = [text for _, text in blocks("python", [ROOT / "README.md"]) if "load_recipe(" in text]
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe(tmp_path, training={"max_steps": 2})))
    program = tmp_path / "program.py"
    program.write_text(example + "\nassert type(model).__name__ == 'Qwen3ForCausalLM'\n", encoding="utf-8")
    run_program(program, folder=tmp_path)


@pytest.mark.subprocess
def test_the_package_of_the_plugin_page_trains(tmp_path):
    package = tmp_path / "acme_edgerazor"
    package.mkdir()
    for _, text in blocks("python", [PLUGIN_PAGE]):
        named = re.match(r"# acme_edgerazor/(\w+\.py)\n", text)
        if named:
            (package / named[1]).write_text(text)
    (entry_points,) = [text for _, text in blocks("toml", [PLUGIN_PAGE]) if "entry-points" in text]
    metadata = tmp_path / "acme_edgerazor-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: acme-edgerazor\nVersion: 1.0\n")
    group = re.search(r"\[project\.entry-points\.(\w+)\]\n(\w+) = \"(\w+)\"", entry_points)
    (metadata / "entry_points.txt").write_text(f"[{group[1]}]\n{group[2]} = {group[3]}\n")
    losses = [{"name": "acme.logit_mse", "weight": 0.5}]
    content = recipe(tmp_path, training={"max_steps": 2}, distillation={"losses": losses})
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(content))
    program = tmp_path / "program.py"
    program.write_text('from edgerazor.cli import main\nmain(["train", "recipe.yaml", "--output", "run"])\n')
    run_program(program, folder=tmp_path)
    assert "acme.logit_mse" in (tmp_path / "run" / "metrics.json").read_text()


def test_the_readme_names_commands_that_there_are():
    named = re.findall(
        r"^(?:\.venv/bin/)?edgerazor ([\w-]+)", (ROOT / "README.md").read_text(encoding="utf-8"), re.MULTILINE
    )
    told = succeed("--help")
    assert {"serve", "report"} <= set(named) and all(re.search(rf"\b{name}\b", told) for name in named)


def test_the_readme_is_read_in_a_few_minutes():
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 120


@pytest.mark.parametrize("page", LINKING, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_every_file_and_folder_a_page_names_exists(page):
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    for path in re.findall(r"\]\((?!http)([\w./-]+[\w/])(?:#[\w-]+)?\)", text):
        assert (page.parent / path).exists(), path
    if "design" not in page.parts:
        for path in re.findall(r"`(edgerazor/[\w/.]+)`", text):
            assert (ROOT / path).exists(), path


@pytest.mark.slow
@pytest.mark.subprocess
def test_the_site_builds_without_a_dead_link(tmp_path):
    pytest.importorskip("mkdocstrings")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    reference = (tmp_path / "site" / "reference" / "index.html").read_text(encoding="utf-8")
    assert 'id="edgerazor.training.train"' in reference and "Raises" in reference
    plugins = (tmp_path / "site" / "guide" / "plugins" / "index.html").read_text(encoding="utf-8")
    assert "/blob/main/examples/acme-edgerazor/README.md" in plugins
