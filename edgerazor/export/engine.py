"""Whether the engine that an export is for can run it: a few tokens or images, where it is installed."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from edgerazor.core.contracts import ClassifierRuntime, Runtime
from edgerazor.core.registry import Registry
from edgerazor.errors import ExportError, PluginError

_TOKENS, _IMAGES = 5, 3


def try_engine(exporter: str, path: Path, registry: Registry) -> tuple[str | None, str | None]:
    """Load an exported model into its engine, read some tokens at once and then one more, or classify images.

    Args:
        exporter: name of the exporter that wrote it.
        path: the file or folder.
        registry: loaded plugins.

    Returns:
        Name and version of the engine, and why it did not run; both None for an exporter that brings no engine.

    Raises:
        ExportError: the engine cannot load the model, fails on it, or gives no finite logits.
    """
    try:
        runtime = registry.runtime(exporter, path)
    except PluginError as error:
        return None, f"{path.name} was compared, not run: {error}"
    if runtime is None:
        return None, None
    try:
        _classify(runtime, path) if isinstance(runtime, ClassifierRuntime) else _run(runtime, path)
        return runtime.engine, None
    finally:
        runtime.close()


def _run(runtime: Runtime, path: Path) -> None:
    """Raise ExportError unless tokens from the whole vocabulary give finite logits of its width."""
    step = max(runtime.vocabulary_size // _TOKENS, 1)
    ids = [index * step for index in range(_TOKENS)][: runtime.context_length]
    runtime.restart()
    with _failures_named(runtime, path):
        rows = [runtime.feed(part)[-1] for part in (ids[:-1], ids[-1:]) if part]
    equal, width = f"{path}: equals the checkpoint, but {runtime.engine}", len(rows[-1])
    if width != runtime.vocabulary_size:
        raise ExportError(f"{equal} gives {width} logits a token; its vocabulary has {runtime.vocabulary_size} tokens")
    if not all(np.isfinite(row).all() for row in rows):
        raise ExportError(f"{equal} gives logits that are no numbers")


def _classify(runtime: ClassifierRuntime, path: Path) -> None:
    """Raise ExportError unless one image and several give finite logits, one for every class."""
    image = runtime.image
    for count in (1, _IMAGES):
        pixels = np.linspace(-1, 1, count * image.channels * image.height * image.width, dtype=np.float32)
        with _failures_named(runtime, path):
            logits = runtime.classify(pixels.reshape(count, image.channels, image.height, image.width))
        equal = f"{path}: equals the checkpoint, but {runtime.engine}"
        if logits.shape != (count, runtime.classes):
            raise ExportError(
                f"{equal} gives logits of shape {list(logits.shape)} for {count} images and {runtime.classes} classes"
            )
        if not np.isfinite(logits).all():
            raise ExportError(f"{equal} gives logits that are no numbers")


@contextmanager
def _failures_named(runtime: Runtime | ClassifierRuntime, path: Path) -> Iterator[None]:
    try:
        yield
    except ExportError as error:
        reason = str(error).removeprefix(f"{path}: ")
        raise ExportError(f"{path}: equals the checkpoint, but {runtime.engine} cannot run it: {reason}") from error
