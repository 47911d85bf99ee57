"""A model is opened once, and the registry that a caller hands in is the one that is used."""

import ast
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edgerazor.checkpoint import pack_model
from edgerazor.core.registry import Registry
from edgerazor.distill.teacher_cache import cache_teacher
from edgerazor.models.load import plan_recipe
from edgerazor.schemas.recipe import load_recipe
from edgerazor.training import train
from tests.runs import recipe, save_model

pytestmark = pytest.mark.slow

PACKAGE = Path(__file__).parents[2] / "edgerazor"
# Where plugins are loaded: commands, `import edgerazor.hf`, and the object that transformers alone constructs.
LOADS_PLUGINS = {"hf.py", "checkpoint/hugging_face.py"}


class Reads:
    """Counts the files of one folder that this process opens."""

    def __init__(self) -> None:
        self.folder: str | None = None
        self.counts: Counter[str] = Counter()
        sys.addaudithook(self._hook)

    def _hook(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open" and self.folder is not None and str(arguments[0]).startswith(self.folder):
            self.counts[Path(str(arguments[0])).relative_to(self.folder).as_posix()] += 1

    def of(self, folder: Path, work: Callable[[], object]) -> Counter[str]:
        self.folder, self.counts = str(folder), Counter()
        try:
            work()
        finally:
            self.folder = None
        return self.counts


READS = Reads()


@pytest.mark.parametrize("command", [plan_recipe, pack_model, cache_teacher, train])
def test_configuration_and_tokenizer_are_read_once(
    tmp_path: Path, registry: Registry, command: Callable[..., object]
) -> None:
    content = recipe(tmp_path, training={"max_steps": 1}, model={"teacher": str(save_model(tmp_path / "teacher"))})
    content["distillation"]["losses"] = [{"name": "eakld"}]
    loaded = load_recipe(content, registry=registry)
    output = {} if command is plan_recipe else {"output": tmp_path / "output"}
    counts = READS.of(tmp_path, lambda: command(loaded, registry=registry, **output))
    read = {name for name in counts if name.startswith(("model/", "teacher/"))}
    assert {"model/config.json", "teacher/config.json"} & read
    assert {name for name in read if name.endswith(("/config.json", "/tokenizer.json")) and counts[name] != 1} == set()


def test_nothing_inside_loads_plugins_that_it_was_handed() -> None:
    """Elsewhere `load_plugins()` only stands in for an argument that the caller may leave out."""
    loose = []
    for path in sorted(PACKAGE.rglob("*.py")):
        name = path.relative_to(PACKAGE).as_posix()
        if name in LOADS_PLUGINS or name.startswith(("cli/", "testing/")):
            continue
        tree = ast.parse(path.read_text(encoding="utf-8"))
        instead = {
            id(node.values[1])
            for node in ast.walk(tree)
            if isinstance(node, ast.BoolOp) and ast.unparse(node) == "registry or load_plugins()"
        }
        loose += [
            f"{name}:{node.lineno}"
            for node in ast.walk(tree)
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "load_plugins" and id(node) not in instead
        ]
    assert not loose
