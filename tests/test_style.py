"""How the code is written: loop variables that say what they hold, short files, functions that fit a screen."""

import ast
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[1]
FILES = sorted(path for top in ("edgerazor", "tests", "benchmarks", "examples") for path in (ROOT / top).rglob("*.py"))
LONGEST_FILE = 300
LONGEST_FUNCTION, LONGEST_KERNEL = 50, 80

# How often a loop still calls its variable `one`, by folder: a number may fall, never rise. Other folders have none.
STILL_CALLED_ONE: dict[str, int] = {
    "edgerazor/checkpoint": 1,
    "edgerazor/training": 1,
    "tests/recipes": 1,
    "tests/training": 1,
}
# Files and functions that are still too long, with their lines: they may shrink, never grow.
STILL_LONG: dict[str, int] = {
    "edgerazor/cli/allocate.py::allocate": 56,
}


def _folder(path: Path) -> str:
    return path.parent.relative_to(ROOT).as_posix()


@cache
def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def _loops_over_one(tree: ast.AST) -> Iterator[int]:
    """Lines of the loops and comprehensions whose variable is `one`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.For | ast.AsyncFor | ast.comprehension) and "one" in _names(node.target):
            yield node.target.lineno


def _names(target: ast.AST) -> set[str]:
    if isinstance(target, ast.Tuple | ast.List):
        return {name for element in target.elts for name in _names(element)}
    return {target.id} if isinstance(target, ast.Name) else set()


def _functions(tree: ast.AST, path: Path) -> Iterator[tuple[str, int, int]]:
    """Name, number of lines without decorators, and the most lines allowed, of every function."""
    limit = LONGEST_KERNEL if "kernels" in path.parts else LONGEST_FUNCTION
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node.name, (node.end_lineno or node.lineno) - node.lineno + 1, limit


def test_loop_variables_say_what_they_hold() -> None:
    found: dict[str, list[str]] = {}
    for path in FILES:
        for line in _loops_over_one(_tree(path)):
            found.setdefault(_folder(path), []).append(f"{path.relative_to(ROOT)}:{line}")
    counts = Counter({folder: len(lines) for folder, lines in found.items()})
    more = {folder: found[folder] for folder in counts if counts[folder] > STILL_CALLED_ONE.get(folder, 0)}
    assert not more, f"`one` says nothing; name the thing: {more}"


def test_files_and_functions_are_short() -> None:
    lengths: dict[str, tuple[int, int]] = {}
    for path in FILES:
        name = path.relative_to(ROOT).as_posix()
        lengths[name] = (len(path.read_text(encoding="utf-8").splitlines()), LONGEST_FILE)
        for function, lines, limit in _functions(_tree(path), path):
            lengths[f"{name}::{function}"] = (lines, limit)
    too_long = {name: lines for name, (lines, limit) in lengths.items() if lines > STILL_LONG.get(name, limit)}
    assert not too_long, f"lines of what no longer fits; take it apart: {too_long}"
