"""Frames of a video at equal distances: pictures in a folder, or a file that PyAV reads."""

import re
from abc import ABC, abstractmethod
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgerazor.data.arrow_rows import inside
from edgerazor.data.images.pictures import SUFFIXES, PictureFile
from edgerazor.errors import DataError, install_hint
from edgerazor.schemas.messages import nearest

FILES = (".mp4", ".mkv", ".webm", ".avi", ".mov", ".m4v", ".flv")
Frame = NDArray[np.uint8]


@dataclass(frozen=True)
class Video(ABC):
    """A video of a row.

    Attributes:
        path: of its file or folder.
        where: file and line of the row, for people.
        seconds: how long it is; None: the row does not say.
    """

    path: Path
    where: str
    seconds: float | None

    @abstractmethod
    def take(self, count: int) -> tuple[list[Frame], float | None]:
        """At most so many frames from its first to its last, uint8 `[height, width, 3]`, and its length in seconds.

        Raises:
            DataError: it cannot be read.
        """

    @property
    @abstractmethod
    def files(self) -> list[Path]:
        """What it is read from."""

    def identity(self) -> list[Any]:
        """What changes when its content does: name, size and time of every file."""
        stats = [(file.name, file.stat()) for file in self.files]
        return [self.seconds, *([name, stat.st_size, stat.st_mtime_ns] for name, stat in stats)]


class FrameFolder(Video):
    """A folder of pictures, in the order of the numbers in their names."""

    @property
    def files(self) -> list[Path]:
        return sorted(
            (file for file in self.path.iterdir() if file.suffix.lower() in SUFFIXES and file.is_file()),
            key=lambda file: [(int(part or 0), part) if part.isdigit() else (0, part) for part in _parts(file.name)],
        )

    def take(self, count: int) -> tuple[list[Frame], float | None]:
        """Pictures at equal distances; all of one size."""
        files = self.files
        chosen = [files[index] for index in spread(len(files), count)]
        try:
            frames = [np.asarray(PictureFile(None, file).open("RGB")) for file in chosen]
        except DataError as error:
            raise DataError(f"{self.where}: {error}") from error
        for file, frame in zip(chosen, frames, strict=True):
            if frame.shape != frames[0].shape:
                first, other = (f"{shape[1]}x{shape[0]}" for shape in (frames[0].shape, frame.shape))
                raise DataError(f"{self.where}: {file} is {other}, the first frame {first}; expected one size")
        return frames, self.seconds


class VideoFile(Video):
    """A file that PyAV opens."""

    @property
    def files(self) -> list[Path]:
        return [self.path]

    def take(self, count: int) -> tuple[list[Frame], float | None]:
        """The frames at times of equal distances, found by going to the key frame before each."""
        import av

        try:
            with av.open(str(self.path)) as container:
                stream = container.streams.video[0]
                length = self._length(container, stream)
                step = 1 / float(stream.average_rate or 25)
                times = np.linspace(0, max(length - step, 0), count)
                frames = [self._frame_at(container, stream, float(time), step) for time in times]
        except (av.FFmpegError, IndexError, StopIteration) as error:
            raise DataError(f"{self.where}: {self.path}: holds no video that can be read: {error}") from error
        return frames, length

    def _length(self, container: Any, stream: Any) -> float:
        """Seconds, by what the file says of its pictures, or of itself."""
        import av

        if stream.duration is not None:
            return float(stream.duration * stream.time_base)
        if container.duration is not None:
            return float(container.duration / av.time_base)
        if self.seconds is None:
            raise DataError(f"{self.where}: {self.path}: does not say how long it is; give the row 'seconds'")
        return self.seconds

    @staticmethod
    def _frame_at(container: Any, stream: Any, time: float, step: float) -> Frame:
        start = stream.start_time or 0
        container.seek(start + int(time / stream.time_base), stream=stream)
        last = None
        for last in container.decode(stream):
            if last.pts is None or float((last.pts - start) * stream.time_base) + step / 2 >= time:
                break
        if last is None:
            raise StopIteration("no frame is there")
        return np.asarray(last.to_ndarray(format="rgb24"))


def find_video(folder: Path, name: str, where: str, seconds: float | None) -> Video:
    """The folder of frames or the file that a row names; the file's ending may be left out.

    Args:
        folder: of the rows.
        name: relative to it.
        where: file and line of the row.
        seconds: how long it is, as the row says.

    Raises:
        DataError: the name leads out of the folder, nothing is there, or no package opens it.
    """
    path = folder / inside(f"{where}: video", name)
    if path.is_dir():
        video = FrameFolder(path, where, seconds)
        if not video.files:
            raise DataError(
                f"{where}: video: {path} holds no frames; expected pictures ({', '.join(sorted(SUFFIXES))})"
            )
        return video
    file = next((found for suffix in ("", *FILES) if (found := Path(f"{path}{suffix}")).is_file()), None)
    if file is None:
        there = [entry.name for entry in path.parent.iterdir()] if path.parent.is_dir() else []
        raise DataError(
            f"{where}: video: {path}: there is no such folder of frames, nor such a file{_near(path, there)}"
        )
    if find_spec("av") is None:
        raise DataError(
            f"{where}: video: {file}: the package av is not installed, which opens videos: {install_hint('video')}; "
            "a folder of frames needs none"
        )
    return VideoFile(file, where, seconds)


def spread(total: int, count: int) -> list[int]:
    """At most `count` indices below `total`, the first and the last among them, at equal distances."""
    return [int(index) for index in np.linspace(0, total - 1, min(count, total)).round()]


def _parts(name: str) -> list[str]:
    return re.split(r"(\d+)", name)


def _near(path: Path, there: list[str]) -> str:
    close = nearest(path.name, there)
    return close if "did you mean" in close else ""
