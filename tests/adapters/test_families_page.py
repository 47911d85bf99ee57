"""The page on families lists every tiny configuration that is tested, and every family that is built in."""

import re
from pathlib import Path

from edgerazor.core.registry import Registry
from tests.families import FAMILIES

PAGE = (Path(__file__).parents[2] / "docs" / "guide" / "families.md").read_text(encoding="utf-8")


def test_every_configuration_is_in_the_table() -> None:
    tested = PAGE.split("## What was tested")[1]
    rows = [line.split("|")[2] for line in tested.splitlines() if line.startswith("| ") and "`" in line]
    assert sorted(re.findall(r"`([^`]+)`", " ".join(rows))) == sorted(FAMILIES)


def test_every_built_in_family_is_named(registry: Registry) -> None:
    first_column = [line.split("|")[1] for line in PAGE.splitlines() if line.startswith("| `")]
    named = set(re.findall(r"`([^`]+)`", " ".join(first_column)))
    assert {declared.component_name() for declared in registry.adapter_declarations()} <= named
