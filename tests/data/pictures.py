"""Small pictures of two classes: dark on the left, or on the right."""

import io
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from transformers import ViTImageProcessorPil

SIDE = 8


def picture(kind: int, seed: int, side: int = SIDE) -> Any:
    """A grey picture of class 0 or 1."""
    rng = np.random.default_rng([kind, seed])
    values = rng.integers(0, 90, (side, side))
    half = slice(0, side // 2) if kind == 0 else slice(side // 2, side)
    values[:, half] += 150
    return Image.fromarray(values.astype(np.uint8))


def encoded(kind: int, seed: int) -> bytes:
    """The same as the bytes of a PNG file."""
    stream = io.BytesIO()
    picture(kind, seed).save(stream, format="PNG")
    return stream.getvalue()


def save_folder(root: Path, count: int = 6, names: tuple[str, str] = ("left", "right")) -> Path:
    """A folder for each class, with so many pictures in each."""
    for kind, name in enumerate(names):
        (root / name).mkdir(parents=True)
        for seed in range(count):
            (root / name / f"{seed:02}.png").write_bytes(encoded(kind, seed))
    return root


def processor(side: int = SIDE, channels: int = 1) -> Any:
    """What makes numbers of them."""
    mean = [0.5] * channels
    return ViTImageProcessorPil(size={"height": side, "width": side}, image_mean=mean, image_std=mean)
