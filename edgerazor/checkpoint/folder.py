"""Writing a folder whole or not at all: a temporary folder beside the target is filled, then takes its place."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

from edgerazor.checkpoint.manifest import files_in, read_manifest
from edgerazor.checkpoint.section import MANIFEST
from edgerazor.core.atomic import file_above, replaced
from edgerazor.errors import CheckpointError


@contextmanager
def replaced_folder(folder: Path) -> Iterator[Path]:
    """Give a temporary folder to fill; once the block ends well it replaces `folder`.

    On any failure nothing of it is left and what was at `folder` is untouched.

    Raises:
        CheckpointError: `folder` holds something other than a complete checkpoint of ours, or cannot be written.
    """
    check_replaceable(folder.resolve())
    try:
        with replaced(folder) as temporary:
            temporary.mkdir()
            yield temporary
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{folder}: cannot be written: {getattr(error, 'strerror', None) or error}") from error


def check_replaceable(folder: Path) -> None:
    """Raise CheckpointError unless `folder` is absent, empty, or holds a complete checkpoint and nothing else;
    a file where a folder above it should be is named."""
    in_the_way = file_above(folder)
    if in_the_way is not None:
        raise CheckpointError(f"{folder}: cannot be written: {in_the_way} is a file, not a folder")
    if not folder.exists():
        return
    if not folder.is_dir():
        raise CheckpointError(f"{folder}: is a file; expected a folder, or a name that is free")
    present = set(files_in(folder))
    ours = {MANIFEST, *read_manifest(folder).files} if MANIFEST in present else set()
    foreign = sorted(present - ours)
    if foreign:
        raise CheckpointError(
            f"{folder}: holds files that are not part of a packed checkpoint ({', '.join(foreign[:5])}"
            f"{', …' if len(foreign) > 5 else ''}); choose another folder, or remove them first"
        )
