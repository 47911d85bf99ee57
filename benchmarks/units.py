"""Units of a long benchmark: figures that are kept on the disk as soon as they are measured, so that a run goes on."""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from edgerazor.core.atomic import write_text


class Units:
    """Figures of contestants, a file for each contestant and seed.

    Args:
        folder: of the files.
        order: names of the contestants, in the order of the results.
    """

    def __init__(self, folder: Path, order: Sequence[str]):
        self.folder = folder
        self._places = {name: place for place, name in enumerate(order)}

    def unit(
        self, facts: Mapping[str, Any], slug: str, told: Any, make: Callable[[], Mapping[str, Any]]
    ) -> tuple[dict[str, Any], bool]:
        """The figures of one contestant and seed, and whether they were made now.

        Args:
            facts: name, seed and whatever else is to be kept beside the figures.
            slug: of the file.
            told: what decides the figures, as JSON can hold it; figures that were made from something else are made
                anew.
            make: measures.
        """
        path = self.folder / f"{slug}-seed{facts['seed']}.json"
        digest = hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()
        if path.exists():
            kept: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            if kept["recipe"] == digest:
                return kept, False
        unit = {**facts, "recipe": digest, **make()}
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, json.dumps(unit, indent=1) + "\n")
        return unit, True

    def kept(self) -> list[dict[str, Any]]:
        """What is measured by now, in the order of the contestants."""
        units = [json.loads(path.read_text(encoding="utf-8")) for path in self.folder.glob("*.json")]
        known = [unit for unit in units if unit["name"] in self._places]
        return sorted(known, key=lambda unit: (self._places[unit["name"]], unit["seed"]))


def digest_of(teacher: Path) -> str:
    """Of the weights of a folder."""
    found = hashlib.sha256()
    for path in sorted(teacher.glob("*.safetensors")):
        found.update(path.read_bytes())
    return found.hexdigest()
