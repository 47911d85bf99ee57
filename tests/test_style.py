"""How the code is written: loop variables that say what they hold, short files, functions that fit a screen."""

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[1]
FILES = sorted(path for top in ("edgerazor", "tests", "benchmarks", "examples") for path in (ROOT / top).rglob("*.py"))
LONGEST_FILE = 300
LONGEST_FUNCTION, LONGEST_KERNEL = 50, 80
MAYBE_OVER_ONE = re.compile(r"\bfor\b[^:]*?\bone\b[^:]*?\bin\b")


@cache
def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8")


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
    found = [
        f"{path.relative_to(ROOT)}:{line}"
        for path in FILES
        # Parsing takes a hundred times as long as looking whether there is anything to parse for.
        if MAYBE_OVER_ONE.search(_text(path))
        for line in _loops_over_one(ast.parse(_text(path)))
    ]
    assert not found, f"`one` says nothing; name the thing: {found}"


def test_files_and_functions_are_short() -> None:
    lengths: dict[str, tuple[int, int]] = {}
    for path in FILES:
        name = path.relative_to(ROOT).as_posix()
        lengths[name] = (len(_text(path).splitlines()), LONGEST_FILE)
        for function, lines, limit in _functions(ast.parse(_text(path)), path):
            lengths[f"{name}::{function}"] = (lines, limit)
    too_long = {name: lines for name, (lines, limit) in lengths.items() if lines > limit}
    assert not too_long, f"lines of what no longer fits; take it apart: {too_long}"
