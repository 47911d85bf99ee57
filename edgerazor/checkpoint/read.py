"""A packed checkpoint, opened: what exporters are handed. Tensors are read one by one."""

from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from torch import Tensor

from edgerazor.checkpoint.manifest import Manifest, manifest_fault, read_manifest
from edgerazor.checkpoint.section import CONFIG, PackedSection, read_section
from edgerazor.core.contracts import ArchitectureAdapter, ModelFacts, TensorRole
from edgerazor.core.discovery import load_plugins
from edgerazor.core.json_files import read_json
from edgerazor.core.packing import Tensors, unpack
from edgerazor.core.registry import Registry
from edgerazor.core.tensor import QuantizedTensor
from edgerazor.core.tensor_files import Header, describe, open_tensors, read_headers, weight_files
from edgerazor.errors import CheckpointError
from edgerazor.schemas.base import nearest


class PackedCheckpoint:
    """A complete packed folder (the `Checkpoint` contract). Made by `open_checkpoint`.

    Attributes:
        folder: where it lies.
        config: the whole of config.json.
        recipe: the resolved recipe.
        digest: content_sha256; over `core.packing.content_digest` of the modules by sorted name (without ".weight").
        section: `quantization_config`, typed.
        manifest: `edgerazor.json`, typed.
        registry: loaded plugins.
        headers: every tensor of the files.
    """

    def __init__(
        self, folder: Path, config: Mapping[str, Any], section: PackedSection, manifest: Manifest, registry: Registry
    ):
        self.registry = registry
        self.folder, self.config, self.section, self.manifest = folder, config, section, manifest
        self.recipe: Mapping[str, Any] = section.recipe
        self.digest = section.content_sha256
        self.headers: dict[str, Header] = read_headers(weight_files(folder))

    @property
    def tied(self) -> Mapping[str, str]:
        """`{module: module whose weight it shares}`; the shared weight is among `names()` once, under its owner."""
        return self.section.tied

    def names(self) -> Iterator[str]:
        """Ordinary weight names, sorted: one per packed matrix and one per other tensor."""
        packed = {f"{name}.weight" for name in self.section.modules}
        yield from sorted(packed | set(self._plain))

    def read(self, name: str) -> Tensor | QuantizedTensor:
        """A packed matrix as `QuantizedTensor`, any other tensor as it is stored.

        Raises:
            CheckpointError: there is no tensor of that name, or the file cannot be read.
        """
        module = name.removesuffix(".weight")
        if name.endswith(".weight") and module in self.section.modules:
            return self._read_packed(module)
        if name not in self._plain:
            raise CheckpointError(f"{self.folder}: there is no tensor '{name}'{nearest(name, self.names())}")
        return self.load(name)

    def role(self, name: str) -> TensorRole:
        """The part a tensor plays, as the family's adapter says."""
        return self._adapter.role(name)

    @cached_property
    def facts(self) -> ModelFacts:
        """Sizes, positions, norms and names of the model, as the adapter of its own model type says.

        Raises:
            CheckpointError: config.json lacks keys or holds no numbers in them.
            PluginError: no adapter covers the model.
        """
        model_type = str(self.config.get("model_type"))
        covered = any(model_type in declared.model_types for declared in self.registry.adapter_declarations())
        adapter: ArchitectureAdapter = self.registry.adapter_for(model_type) if covered else self._adapter
        return adapter.facts(self.config)

    def expected(self, module: str) -> dict[str, tuple[tuple[int, ...], Any]]:
        """`{tensor name: (shape, dtype)}` of one packed module, given the shape of its scales."""
        layout = self.section.layout(module)
        scale = self.headers.get(f"{module}.weight_scale")
        if scale is None or len(scale.shape) != 2:
            return {f"{module}.weight_scale": ((), None)}
        rows, columns = scale.shape[0], scale.shape[1] * layout.group_size
        return {f"{module}.{suffix}": kind for suffix, kind in layout.shapes(rows, columns).items()}

    def load(self, name: str) -> Tensor:
        """One tensor by its name in the file."""
        header = self.headers[name]
        with open_tensors(header.file) as opened:
            tensor: Tensor = opened.get_tensor(name)
        return tensor

    def packed_tensors(self, module: str) -> Tensors:
        """The stored tensors of one module by suffix (`weight_t5`, ...)."""
        return {name[len(module) + 1 :]: self.load(name) for name in self.expected(module)}

    def check_complete(self) -> None:
        """Raise CheckpointError that lists every packed tensor that is missing or of another shape or dtype."""
        problems = []
        for module in self.section.modules:
            for name, (shape, dtype) in self.expected(module).items():
                problems += check_header(name, self.headers.get(name), shape, dtype)
        if problems:
            raise CheckpointError("\n".join(f"{self.folder}: {line}" for line in problems))

    @cached_property
    def _adapter(self) -> ArchitectureAdapter:
        """Of the family that the recipe names, which may cover the model's type by its own group sizes only."""
        family = (self.recipe.get("model") or {}).get("family") or self.config.get("model_type")
        adapter: ArchitectureAdapter = self.registry.adapter_for(str(family))
        return adapter

    @cached_property
    def _plain(self) -> set[str]:
        packed = {name for module in self.section.modules for name in self.expected(module)}
        return set(self.headers) - packed - {self.section.guard}

    def _read_packed(self, module: str) -> QuantizedTensor:
        tensors, layout = self.packed_tensors(module), self.section.layout(module)
        return unpack(layout, tensors, tensors["weight_scale"].shape[1] * layout.group_size)


def check_header(name: str, header: Header | None, shape: tuple[int, ...], dtype: Any) -> list[str]:
    """What is wrong with a stored tensor: nothing, or one line."""
    if header is None:
        return [f"{name}: is missing"]
    if header.shape != shape or header.dtype != dtype:
        return [f"{name}: is {header.describe()}, expected {describe(shape, dtype)}"]
    return []


def open_checkpoint(folder: str | Path, *, registry: Registry | None = None) -> PackedCheckpoint:
    """Open a packed checkpoint: configuration, manifest, sizes of all files and headers of all tensors are checked.

    Transformers knows the model types of all adapters afterwards.

    Args:
        folder: of the checkpoint.
        registry: loaded plugins; None loads them.

    Raises:
        CheckpointError: the folder is no finished packed checkpoint, of a newer format, or a file or tensor is missing,
            cut off or of another shape; the message names file and key.
        PluginError: the classes of a model type that an adapter brings cannot be imported.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise CheckpointError(f"{folder}: there is no such folder")
    config = read_json(folder / CONFIG)
    section = read_section(config.get("quantization_config"), str(folder / CONFIG))
    if not isinstance(section, PackedSection):
        raise CheckpointError(
            f"{folder}: holds latent weights of quantization-aware training, not a packed checkpoint; pack it first, "
            "or load it with AutoModelForCausalLM.from_pretrained after `import edgerazor.hf`"
        )
    manifest = read_manifest(folder)
    for name, entry in manifest.files.items():
        if fault := manifest_fault(folder / name, entry, compare="size"):
            raise CheckpointError(f"{folder / name}: {fault}")
    registry = registry or load_plugins()
    registry.register_models()
    checkpoint = PackedCheckpoint(folder, config, section, manifest, registry)
    checkpoint.check_complete()
    return checkpoint
