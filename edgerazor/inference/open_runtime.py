"""Models on disk behind one interface: packed checkpoints in Transformers, exported ones in their own engines."""

from pathlib import Path

from edgerazor.core.contracts import ClassifierRuntime, Runtime
from edgerazor.core.registry import Registry
from edgerazor.errors import CheckpointError, ExportError


def open_runtime(path: str | Path, *, registry: Registry, unquantized: bool = False) -> Runtime:
    """Load a packed language model, or one that any exporter wrote.

    Args:
        path: of the file or folder.
        registry: loaded plugins.
        unquantized: take a 16-bit model too, by its folder or its hub name.

    Raises:
        CheckpointError: the folder is neither, or the checkpoint is damaged, has no tokenizer or classifies images.
        ExportError: the file does not exist, no exporter knows it, its exporter brings no engine, or it classifies
            images.
        PluginError: the engine is not installed.
    """
    path = Path(path)
    name = _find_exporter(path, registry)
    if name is None and not path.is_file():
        if unquantized and (_is_unquantized(path) or _is_on_hub(path)):
            return _open_unquantized(path, registry)
        return _open_packed(path, registry)
    runtime = open_exported(path, registry=registry)
    if isinstance(runtime, ClassifierRuntime):
        runtime.close()
        raise ExportError(f"{path}: classifies images; expected a language model")
    return runtime


def open_exported(path: Path, *, registry: Registry) -> Runtime | ClassifierRuntime:
    """Load a model that any exporter wrote.

    Raises:
        ExportError, PluginError: as `open_runtime`.
    """
    if not path.exists():
        raise ExportError(f"{path}: there is no such file or folder")
    name = exporter_of(path, registry)
    runtime = registry.runtime(name, path)
    if runtime is None:
        raise ExportError(f"{path}: exporter '{name}' brings no engine that could run it")
    return runtime


def is_exported(path: Path, registry: Registry) -> bool:
    """Whether `path` is what an exporter writes; a packed checkpoint is not."""
    return _find_exporter(path, registry) is not None


def _open_packed(folder: Path, registry: Registry) -> Runtime:
    from edgerazor.checkpoint import load_model, open_checkpoint
    from edgerazor.models.tokenizer import load_tokenizer
    from edgerazor.models.transformers_runtime import TransformersRuntime

    if not folder.is_dir():
        raise CheckpointError(f"{folder}: there is no such folder; expected a packed checkpoint or an exported model")
    opened = open_checkpoint(folder, registry=registry)
    if opened.facts.image is not None:
        raise CheckpointError(f"{folder}: classifies images; expected a language model")
    tokenizer = load_tokenizer(folder)
    return TransformersRuntime(load_model(folder, registry=registry), tokenizer, opened.recipe, folder=str(folder))


def _is_unquantized(folder: Path) -> bool:
    """Whether a folder has a configuration that says nothing of quantization."""
    from edgerazor.core.json_files import read_json

    config = folder / "config.json"
    return config.is_file() and "quantization_config" not in read_json(config)


def _is_on_hub(name: Path) -> bool:
    """Whether nothing of that name is here, and it could be a hub model's: OWNER/NAME, or one that is in the cache."""
    from edgerazor.schemas.preset import local_config

    if name.exists() or name.is_absolute():
        return False
    return local_config(str(name)) is not None or (len(name.parts) == 2 and not name.parent.exists())


def _open_unquantized(folder: Path, registry: Registry) -> Runtime:
    from edgerazor.models.load import pick_device
    from edgerazor.models.source import ModelSource
    from edgerazor.models.transformers_runtime import TransformersRuntime

    source, device = ModelSource(str(folder), registry=registry), pick_device()
    model = source.load("float32" if device.type == "cpu" else "auto")
    return TransformersRuntime(model.to(device), source.tokenizer, folder=source.name)


def exporter_of(path: Path, registry: Registry) -> str:
    """Name of the exporter that declares the file's first bytes, a file inside the folder, or the suffix.

    Raises:
        ExportError: none does.
    """
    name = _find_exporter(path, registry)
    if name is None:
        names = ", ".join(registry.names("exporter")) or "none"
        raise ExportError(f"{path}: no exporter knows this kind of file; there are: {names}")
    return name


def _find_exporter(path: Path, registry: Registry) -> str | None:
    start = b""
    if path.is_file():
        with path.open("rb") as file:
            start = file.read(16)
    declared = registry.exporter_declarations()
    for params in declared:
        inside = [name for name in (params.marker, *params.other_markers) if name and (path / name).is_file()]
        if (params.magic and start.startswith(params.magic)) or params.marks(inside):
            return params.component_name()
    for params in declared:
        if path.suffix in params.suffixes:
            return params.component_name()
    return None
