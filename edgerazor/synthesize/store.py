"""The file that is written: a row per finished dialogue, appended, so that an interruption loses no row."""

import json
import os
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from edgerazor.core.atomic import sync_descriptor
from edgerazor.core.claims import claimed
from edgerazor.errors import SynthesisError
from edgerazor.schemas.synthesis import SynthesisSettings
from edgerazor.synthesize.drafts import FinishedDialogue

_ROW_BEGINS = b'{"id"'
_SECONDS_BETWEEN_SYNCS = 1.0


def check_output(output: Path) -> None:
    """Raise SynthesisError for what cannot be the file of a recipe's source."""
    if output.is_dir():
        raise SynthesisError(f"{output}: is a folder; expected the name of a JSON-lines file")
    if output.suffix != ".jsonl":
        raise SynthesisError(f"{output}: must end in .jsonl, so that a recipe can name it as a source")


class RowStore:
    """JSON lines `{"id", "messages", "finish_reasons", "settings"}`, with `tools` where there are any; an entry of
    `data.sources`.

    Opening claims the file, removes a last line that was torn by a kill, and reads which ids are there. A row is one
    `write` to a file in append mode, taken back if it does not fit; the disk is synchronized about once a second.

    Args:
        path: of the file.
        settings: of the run, which stand in every row.
        on_row: called with each row that is there.

    Raises:
        OutputError: another process writes to it.
        SynthesisError: it cannot be opened or written, it holds rows of other settings (each is named) or lines of
            another origin.
    """

    def __init__(self, path: Path, settings: SynthesisSettings, on_row: Callable[[dict[str, Any]], None] | None = None):
        self.path, self.done = path, set[str]()
        self._on_row = on_row
        self._settings = settings.model_dump(mode="json")
        with ExitStack() as stack:
            stack.enter_context(claimed(path))
            self._created = not path.exists()
            try:
                self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
            except OSError as error:
                raise SynthesisError(f"{path}: cannot be written: {error.strerror}") from error
            stack.callback(os.close, self._file)
            try:
                self._size = self._repair()
                self._read()
            except OSError as error:
                raise SynthesisError(f"{path}: cannot be read or repaired: {error.strerror}") from error
            self._held = stack.pop_all()
        self._synced, self._unsynced = time.monotonic(), False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close; a file that this run created and wrote nothing to is removed."""
        if self._unsynced:
            with suppress(OSError):
                sync_descriptor(self._file)
        if self._created and not self._size:
            self.path.unlink(missing_ok=True)
        self._held.close()

    def append(self, written: FinishedDialogue, **more: Any) -> None:
        """Write one row, whole or not at all, with more columns."""
        tools = {"tools": list(written.prompt.tools)} if written.prompt.tools else {}
        columns = {"messages": written.messages, **tools, "finish_reasons": written.finish_reasons, **more}
        self.append_row(written.prompt.id, columns)

    def append_row(self, identifier: str, columns: dict[str, Any]) -> None:
        """Write one row of any columns, whole or not at all."""
        row = {"id": identifier, **columns, "settings": self._settings}
        line = (json.dumps(row, ensure_ascii=False, default=str) + "\n").encode()
        try:
            rest = memoryview(line)
            while rest:
                rest = rest[os.write(self._file, rest) :]
            self._unsynced = time.monotonic() - self._synced < _SECONDS_BETWEEN_SYNCS
            if not self._unsynced:
                sync_descriptor(self._file)
                self._synced = time.monotonic()
        except OSError as error:
            with suppress(OSError):
                os.ftruncate(self._file, self._size)
            raise SynthesisError(f"{self.path}: cannot be written: {error.strerror}") from error
        self._size += len(line)
        self.done.add(identifier)

    def _repair(self) -> int:
        """Cut what follows the last line break, unless only the break is missing; return the size in bytes."""
        with self.path.open("rb") as file:
            size = end = file.seek(0, os.SEEK_END)
            tail = b""
            while end and b"\n" not in tail:
                start = max(0, end - (1 << 16))
                file.seek(start)
                tail, end = file.read(end - start) + tail, start
        torn = tail[tail.rfind(b"\n") + 1 :]
        if not torn:
            return size
        if _parse(torn) is not None:
            os.write(self._file, b"\n")
            return size + 1
        begun = torn.rstrip(b"\0")  # a machine that lost power may leave zeros
        if not begun.startswith(_ROW_BEGINS[: len(begun)]):
            raise self._foreign("its last line")
        os.ftruncate(self._file, size - len(torn))
        return size - len(torn)

    def _read(self) -> None:
        with self.path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                row = _parse(line)
                if row is None:
                    raise self._foreign(f"line {number}")
                if row["settings"] != self._settings:
                    raise SynthesisError("\n".join(self._differences(number, row["settings"])))
                self.done.add(row["id"])
                if self._on_row is not None:
                    self._on_row(row)

    def _foreign(self, what: str) -> SynthesisError:
        return SynthesisError(f"{self.path}: {what} is not from `edgerazor synthesize`; choose another file")

    def _differences(self, number: int, theirs: dict[str, Any]) -> list[str]:
        ours, theirs = _flat(self._settings), _flat(theirs)
        return [
            f"{self.path}: line {number} was written with {key} {json.dumps(theirs.get(key), ensure_ascii=False)}, now "
            f"it is {json.dumps(ours.get(key), ensure_ascii=False)}; go on with the same, or choose another file"
            for key in sorted(ours.keys() | theirs.keys())
            if ours.get(key) != theirs.get(key)
        ]


def _flat(settings: dict[str, Any]) -> dict[str, Any]:
    """With the keys of a section as `section.key`."""
    found: dict[str, Any] = {}
    for key, value in settings.items():
        found |= {f"{key}.{inner}": held for inner, held in value.items()} if isinstance(value, dict) else {key: value}
    return found


def _parse(line: bytes) -> dict[str, Any] | None:
    """A row of ours, or None."""
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return None
    sound = isinstance(row, dict) and isinstance(row.get("id"), str) and isinstance(row.get("settings"), dict)
    return row if sound else None
