"""`edgerazor.json`: the files of a checkpoint with their hashes, and its origin. Written last, so it means complete."""

import json
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, ValidationError

from edgerazor.checkpoint.section import FORMAT_VERSION, MANIFEST, UnquantizedDtype, without_bfloat16
from edgerazor.core.digests import file_digests, file_fault
from edgerazor.core.json_files import check_file_name, read_json
from edgerazor.errors import CheckpointError
from edgerazor.schemas.base import Schema
from edgerazor.schemas.recipe import key_path
from edgerazor.version import __version__


class FileEntry(Schema):
    """Size and hashes of one file; version 0.1 wrote no `xxh3_128`, the fast one that loading compares."""

    title: ClassVar[str] = "file"

    bytes: Annotated[int, Field(ge=0)]
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
    xxh3_128: Annotated[str | None, Field(pattern="^[0-9a-f]{32}$")] = None


class BitsPerWeight(Schema):
    """Mean over the quantized weights: codes alone, codes and scales, bytes spent in the file."""

    title: ClassVar[str] = "bits_per_weight"

    nominal: float
    effective: float
    file: float


class Manifest(Schema):
    """The content of `edgerazor.json`."""

    title: ClassVar[str] = "the manifest"

    format_version: Literal[1] = 1
    mode: Literal["packed"] = "packed"
    edgerazor_version: str = __version__
    files: dict[str, FileEntry]
    base_model: dict[str, str | None]
    content_sha256: str
    parameters: int
    bits_per_weight: BitsPerWeight
    unquantized_dtype: UnquantizedDtype = "bfloat16"
    plugins: dict[str, str]
    evaluation: dict[str, Any] | None = None
    notes: tuple[str, ...] = ()


def hash_file(path: Path) -> FileEntry:
    """Bytes and hashes of a file."""
    return FileEntry(bytes=path.stat().st_size, **file_digests(path, "sha256", "xxh3_128"))


def manifest_fault(path: Path, entry: FileEntry, *, compare: Literal["size", "fast", "all"]) -> str | None:
    """What is wrong with a file of the manifest, or None.

    Args:
        compare: beside the size nothing, the fast digest where the entry has it, else the other, or both.
    """
    secure = {"sha256": entry.sha256}
    fast = {"xxh3_128": entry.xxh3_128} if entry.xxh3_128 else {}
    digests = {"size": {}, "fast": fast or secure, "all": secure | fast}[compare]
    return file_fault(path, entry.bytes, digests, listed_in=MANIFEST)


def files_in(folder: Path) -> list[str]:
    """Relative names of all files below a folder, sorted."""
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir())


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write `edgerazor.json`; all other files must be there already."""
    text = json.dumps(without_bfloat16(manifest.model_dump(mode="json")), indent=1, sort_keys=True)
    (folder / MANIFEST).write_text(text + "\n", encoding="utf-8")


def read_manifest(folder: Path) -> Manifest:
    """Read `edgerazor.json`.

    Raises:
        CheckpointError: it is missing, malformed, or names a file outside its folder.
    """
    path = folder / MANIFEST
    if not path.exists():
        raise CheckpointError(
            f"{path}: is missing, so this folder is not a finished packed checkpoint; write it again, or load what "
            "save_pretrained wrote with AutoModelForCausalLM.from_pretrained after `import edgerazor.hf`"
        )
    content = read_json(path)
    version = content.get("format_version")
    if isinstance(version, int) and version > FORMAT_VERSION:
        raise CheckpointError(
            f"{path}: format_version: is {version}; edgerazor {__version__} reads up to {FORMAT_VERSION}: "
            "install a newer edgerazor"
        )
    try:
        manifest = Manifest.model_validate(content)
    except ValidationError as error:
        lines = [f"{path}: {key_path(line['loc'])}: {line['msg']}" for line in error.errors()]
        raise CheckpointError("\n".join(lines)) from error
    for name in manifest.files:
        check_file_name(name, f"{path}: files")
    return manifest
