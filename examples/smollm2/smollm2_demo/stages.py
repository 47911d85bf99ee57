"""Finished stages of a run: their figures are kept, so that the same command goes on where it was stopped."""

import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from edgerazor.core.atomic import replaced
from edgerazor.errors import TrainingError


class Stages:
    """The stages of one folder.

    Args:
        folder: of the run; `stages.json` in it holds what is finished.
        deciding: what must be the same when a run goes on.
        say: told which stage begins or is skipped.

    Raises:
        TrainingError: the folder holds a run with other settings.
    """

    def __init__(self, folder: Path, deciding: Mapping[str, Any], say: Callable[[str], None]):
        self._path, self._deciding, self._say = folder / "stages.json", dict(deciding), say
        self._done: dict[str, Any] = {}
        if self._path.is_file():
            stored = json.loads(self._path.read_text(encoding="utf-8"))
            self._check(stored["settings"])
            self._done = stored["done"]

    def __call__(self, name: str, work: Callable[[], Any]) -> Any:
        """What `work` returns, as plain data; what it returned the last time, if this stage was finished."""
        if name in self._done:
            self._say(f"{name}: finished before")
            return self._done[name]["figures"]
        self._say(f"{name} …")
        started = time.monotonic()
        figures = work()
        self._done[name] = {"figures": figures, "seconds": round(time.monotonic() - started, 1)}
        with replaced(self._path) as path:
            content = {"settings": self._deciding, "done": self._done}
            path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        return json.loads(json.dumps(figures))

    def has(self, name: str) -> bool:
        """Whether a stage is finished."""
        return name in self._done

    @property
    def seconds(self) -> dict[str, float]:
        """Wall clock of every finished stage."""
        return {name: stage["seconds"] for name, stage in self._done.items()}

    def _check(self, stored: Mapping[str, Any]) -> None:
        other = [f"{key} {stored.get(key)}" for key, value in self._deciding.items() if stored.get(key) != value]
        if other:
            raise TrainingError(
                f"{self._path.parent}: holds a run with {', '.join(other)}; give those settings to go on with it, "
                "another --output, or remove the folder"
            )
