"""A message that shows a video, as a runtime reads it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

FRAMES, MAX_PIXELS = 32, 768 * 28 * 28


@dataclass(frozen=True)
class VideoMessage:
    """A user's message: a video, and text behind it.

    Attributes:
        text: behind the video.
        frames: pictures taken at equal distances of time, uint8 `[height, width, 3]` each, all of one size.
        seconds: of the whole video; None: unknown, and two frames are taken for a second.
        max_pixels: a frame is made smaller where it has more.
        system: the system message, if any.
    """

    text: str
    frames: "Sequence[NDArray[np.uint8]]"
    seconds: float | None = None
    max_pixels: int = MAX_PIXELS
    system: str | None = None
