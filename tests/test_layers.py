"""Who may import whom (imports inside functions included), and no import cycles."""

import ast
import graphlib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parent.parent / "edgerazor"
MODULES = {".".join(path.relative_to(ROOT).with_suffix("").parts): path for path in sorted(ROOT.rglob("*.py"))}
BASE = ["version", "errors", "schemas", "core"]
MAY_IMPORT = {
    "version": [],
    "errors": ["version"],
    "schemas": ["errors"],
    "kernels": ["errors"],
    "core": ["version", "errors", "schemas", "kernels"],
    "adapters": BASE,
    "models": BASE,
    "plugins": [*BASE, "kernels", "models"],
    "data": BASE,
    "checkpoint": [*BASE, "kernels", "models"],
    "inference": [*BASE, "models", "checkpoint"],
    "export": [*BASE, "checkpoint", "inference"],
    "evaluate": [*BASE, "kernels", "models", "data", "checkpoint", "inference"],
    "distill": [*BASE, "kernels", "models", "data"],
    "training": [*BASE, "models", "data", "checkpoint", "distill", "evaluate", "export", "calibrate", "allocate"],
    "recipes": [*BASE, "models", "distill"],
    "calibrate": [*BASE, "kernels", "models", "data", "checkpoint"],
    "convert": BASE,
    "importers": [*BASE, "kernels", "models", "checkpoint"],
    "allocate": [*BASE, "kernels", "models", "data", "evaluate"],
    "synthesize": [*BASE, "models", "data", "inference"],
    "serve": [*BASE, "data", "inference"],
    "report": [*BASE, "checkpoint", "inference", "evaluate"],
    "quickstart": [
        *BASE,
        "kernels",
        "models",
        "data",
        "checkpoint",
        "inference",
        "evaluate",
        "export",
        "training",
        "report",
    ],
    "hf": [*BASE, "checkpoint"],
    "testing": [*BASE, "models", "checkpoint"],
    "cli": [
        *BASE,
        "models",
        "checkpoint",
        "inference",
        "export",
        "evaluate",
        "distill",
        "training",
        "recipes",
        "calibrate",
        "convert",
        "importers",
        "allocate",
        "synthesize",
        "serve",
        "quickstart",
        "report",
    ],
    "__main__": ["cli"],
}


@cache
def parse(module: str) -> ast.Module:
    return ast.parse(MODULES[module].read_text(encoding="utf-8"))


def imported(nodes: Iterator[ast.AST] | list[ast.stmt]) -> set[str]:
    """Modules of ours that these statements name, without the leading package."""
    names: set[str] = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return {name.removeprefix("edgerazor.") for name in names if name.split(".")[0] == "edgerazor"}


def test_a_module_imports_only_what_its_part_may() -> None:
    forbidden = []
    for module in MODULES.keys() - {"__init__"}:
        part = module.split(".", maxsplit=1)[0]
        assert part in MAY_IMPORT, f"{module} belongs to no part of the architecture"
        allowed = tuple(f"{prefix}." for prefix in (part, *MAY_IMPORT[part]))
        named = imported(ast.walk(parse(module)))
        forbidden += [f"{module} imports edgerazor.{name}" for name in named if not f"{name}.".startswith(allowed)]
    assert not forbidden


def is_module(name: str) -> bool:
    return name in MODULES or f"{name}.__init__" in MODULES


def at_module_level(tree: ast.Module) -> Iterator[ast.AST]:
    """Statements outside functions and classes, those for type checkers included."""
    for node in tree.body:
        yield node
        yield from node.body if isinstance(node, ast.If | ast.Try) else ()


def test_there_are_no_import_cycles() -> None:
    graph: dict[str, set[str]] = {}
    lazily = "__init__"  # the public names, which are imported on first use
    for module in MODULES:
        if module == lazily:
            continue
        named = imported(at_module_level(parse(module)))
        homes = {name if is_module(name) else name.rpartition(".")[0] for name in named}
        graph[module] = {*homes, *(f"{home}.__init__" for home in homes)} & MODULES.keys()
    graphlib.TopologicalSorter(graph).prepare()
