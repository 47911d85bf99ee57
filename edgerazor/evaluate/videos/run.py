"""Run tasks about videos on a model: the option whose letter is likeliest is its answer."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from edgerazor.core.contracts import Runtime, VideoMessage
from edgerazor.core.contracts.videos import FRAMES, MAX_PIXELS
from edgerazor.core.registry import Registry
from edgerazor.errors import DataError, ExportError
from edgerazor.evaluate.side_by_side import Progress
from edgerazor.evaluate.tasks.request_cache import RequestCache, identify_model
from edgerazor.evaluate.tasks.rows import find_file, missing_file, read_checked
from edgerazor.evaluate.videos.catalog import VideoTask, letters_of
from edgerazor.evaluate.videos.frames import Video, find_video
from edgerazor.evaluate.videos.scores import Answer, results_of
from edgerazor.inference.open_runtime import open_runtime
from edgerazor.schemas.preset import local_config


@dataclass
class VideoRun:
    """Which tasks about videos, on which rows.

    Args:
        tasks: at least one.
        data: folder with NAME.jsonl or NAME.jsonl.gz of each, and with the videos that they name.
        limit: at most this many rows of each; None is all.
        cache: file of answers; None keeps none.
        frames: taken of each video, at most.
        max_pixels: of a frame.
        system: a system message, if any.

    Raises:
        DataError: no such folder or file, a row is malformed, or its video is not there.
    """

    tasks: Sequence[VideoTask]
    data: Path
    limit: int | None = None
    cache: Path | None = None
    frames: int = FRAMES
    max_pixels: int = MAX_PIXELS
    system: str | None = None
    missing: dict[str, str] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        self._whole: dict[str, list[dict[str, Any]]] = {}
        self._rows: dict[str, list[dict[str, Any]]] = {}
        for task in self.tasks:
            self._whole[task.name] = whole = self._read(task)
            self._rows[task.name] = [self._with_video(row) for row in whole[: self.limit]]

    def _read(self, task: VideoTask) -> list[dict[str, Any]]:
        path = find_file(self.data, task.file_of_rows)
        if path is None:
            raise DataError(missing_file(self.data, task.file_of_rows))
        return read_checked(path, task.keys, lambda row, where: {**task.keep(row, where), "where": where})

    def _with_video(self, row: dict[str, Any]) -> dict[str, Any]:
        return {**row, "video": find_video(self.data, row["video"], row["where"], row.get("seconds"))}

    def measure(self, path: Path, registry: Registry, progress: Progress | None = None) -> dict[str, Any]:
        """Results of one model in lm-evaluation-harness's format, with every item under `samples`.

        Raises:
            CheckpointError, ExportError: it cannot be loaded, or reads text alone.
            DataError: a video cannot be read.
        """
        runtime = open_runtime(path, registry=registry, unquantized=True)
        try:
            runtime.check_videos()
            fetched = None if path.exists() else local_config(str(path))
            cache = RequestCache(self.cache, identify_model(fetched.parent if fetched else path, runtime.engine))
            try:
                answers = self._answer_all(runtime, cache, progress and (lambda *counts: progress(str(path), *counts)))
            finally:
                cache.close()
        finally:
            runtime.close()
        settings = {"frames": self.frames, "max_pixels": self.max_pixels, "system": self.system}
        config = {"model": "edgerazor", "model_args": f"path={path}", "engine": runtime.engine, "limit": self.limit}
        return {**results_of(self.tasks, self._rows, answers, self._whole), "config": {**config, **settings}}

    def _answer_all(
        self, runtime: Runtime, cache: RequestCache, shown: Callable[[int, int], None] | None
    ) -> Mapping[str, list[Answer]]:
        total, found = sum(map(len, self._rows.values())), dict[str, list[Answer]]()
        for task in self.tasks:
            found[task.name] = answers = []
            for row in self._rows[task.name]:
                answers.append(self._answer(runtime, cache, task.ask(row), letters_of(row), row["video"]))
                if shown is not None:
                    shown(sum(map(len, found.values())), total)
        return found

    def _answer(self, runtime: Runtime, cache: RequestCache, text: str, letters: Sequence[str], video: Video) -> Answer:
        request = ("video", text, list(letters), self.system, self.frames, self.max_pixels, video.identity())
        known = cache.get(*request)
        if known is None:
            tokens = letter_tokens(runtime, letters)
            frames, seconds = video.take(self.frames)
            message = VideoMessage(text, frames, seconds, self.max_pixels, self.system)
            try:
                logits = runtime.read_video(message)
            except ExportError as error:
                raise DataError(f"{video.where}: {error}") from error
            best = int(np.argmax(logits[tokens]))
            known = [letters[best], bool(logits[tokens[best]] >= logits.max())]
            cache.put(known, *request)
        return Answer(str(known[0]), bool(known[1]))


def letter_tokens(runtime: Runtime, letters: Sequence[str]) -> list[int]:
    """The token that each letter is.

    Raises:
        ExportError: a letter is none or several.
    """
    found = [runtime.encode_rendered(letter) for letter in letters]
    for letter, ids in zip(letters, found, strict=True):
        if len(ids) != 1:
            raise ExportError(f"{runtime.name}: its tokenizer makes {len(ids)} tokens of the letter {letter}, not one")
    return [ids[0] for ids in found]
