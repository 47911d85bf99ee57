"""Answers to requests, kept on disk, so that an interrupted run goes on where it was."""

import hashlib
import json
import sqlite3
from pathlib import Path
from typing import Any

from edgerazor.errors import OutputError
from edgerazor.version import __version__

_TABLE = "CREATE TABLE IF NOT EXISTS answers (request BLOB PRIMARY KEY, answer TEXT NOT NULL) WITHOUT ROWID"


class RequestCache:
    """A table of SQLite; what was put is there after a kill. lm_eval's own cache would pickle.

    Args:
        path: of the file, made if it is missing; None keeps nothing.
        model: says which weights answer, in which engine.

    Raises:
        OutputError: the file cannot be opened, or is something else.
    """

    def __init__(self, path: Path | None, model: str):
        self._path, self._model = path, model
        self._connection: sqlite3.Connection | None = None
        if path is not None:
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                self._connection = sqlite3.connect(path, isolation_level=None, timeout=60)
                self._connection.execute("PRAGMA journal_mode=WAL")
                self._connection.execute(_TABLE)
            except (sqlite3.Error, OSError) as error:
                raise OutputError(f"{path}: cannot keep answers there: {error}") from error

    def get(self, *request: Any) -> Any:
        """The answer to a request, or None."""
        if self._connection is None:
            return None
        row = self._run("SELECT answer FROM answers WHERE request = ?", self._key(request)).fetchone()
        return None if row is None else json.loads(row[0])

    def put(self, answer: Any, *request: Any) -> None:
        """Keep the answer to a request; both are of what JSON knows."""
        if self._connection is not None:
            self._run("INSERT OR REPLACE INTO answers VALUES (?, ?)", self._key(request), json.dumps(answer))

    def close(self) -> None:
        """Close the file."""
        if self._connection is not None:
            self._connection.close()

    def _run(self, statement: str, *values: Any) -> sqlite3.Cursor:
        assert self._connection is not None
        try:
            return self._connection.execute(statement, values)
        except sqlite3.Error as error:
            raise OutputError(f"{self._path}: {error}; another --cache, or --no-cache, leaves it alone") from error

    def _key(self, request: tuple[Any, ...]) -> bytes:
        return hashlib.sha256(json.dumps([self._model, *request]).encode()).digest()


def identify_model(path: Path, engine: str) -> str:
    """What changes when the weights or the engine do: version and engine, name, size and time of every file."""
    files = [path] if path.is_file() else sorted(file for file in path.rglob("*") if file.is_file())
    stats = [(str(file.resolve()), file.stat().st_size, file.stat().st_mtime_ns) for file in files]
    return json.dumps([__version__, engine, stats])
