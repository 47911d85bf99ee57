"""The exporter of GGUF files: what is planned, written and compared."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgerazor.core.contracts import Checkpoint, ComparisonResult, Exporter, ExportResult, NamedTensors
from edgerazor.errors import ExportError, install_hint

try:
    from edgerazor.plugins.exporters.gguf.write import write_gguf
except ModuleNotFoundError as error:
    if error.name != "gguf":
        raise
    raise ImportError(f"the package gguf is not installed: {install_hint('gguf')}") from error

from edgerazor.plugins.exporters.common import VERSION, describe_settings, read_settings
from edgerazor.plugins.exporters.gguf.plan import GGUFPlan, plan_export
from edgerazor.plugins.exporters.gguf.read import read_metadata
from edgerazor.plugins.exporters.gguf.report import describe_export, general_keys
from edgerazor.plugins.exporters.gguf.verify import verify_gguf

# What decides keys; block types are those of the tensors in the file.
_STATED = ("context_length", "tokenizer_differences")
# What may differ between files of one checkpoint, and is read by people only: a folder may be renamed, a later version
# writes the same, and two keys follow from block types, which are compared themselves.
_LABELS = ("general.name", VERSION, "general.file_type", "edgerazor.file_bits")


class GGUFExporter(Exporter[GGUFPlan]):
    """Packs codes and scales into GGUF blocks; whatever a block cannot hold exactly is refused."""

    kind = "GGUF"

    def plan(self, checkpoint: Checkpoint, tensors: NamedTensors) -> GGUFPlan:
        """Names, block types and keys; see `plan_export`."""
        return plan_export(checkpoint, self.params, tensors)

    def write(self, checkpoint: Checkpoint, plan: GGUFPlan, path: Path) -> None:
        """Write keys and tensors to one file, a tensor at a time."""
        write_gguf(
            path,
            plan.architecture.name,
            self._keys(checkpoint, plan),
            plan,
            checkpoint,
            lambda done, total: self.show("writing", done, total),
        )

    def describe(self, checkpoint: Checkpoint, plan: GGUFPlan, path: Path) -> ExportResult:
        """Size, bits per weight by block type, and remarks."""
        return describe_export(path, plan)

    def stated_settings(self, path: Path) -> Mapping[str, Any]:
        """Positions, and whether other tokens were tolerated, where the file was not written with the defaults."""
        metadata = read_metadata(Path(path))
        try:
            return read_settings(metadata)
        except ExportError as error:
            raise ExportError(f"{path}: {error}") from error

    def verify(self, path: Path, checkpoint: Checkpoint) -> ComparisonResult:
        """Read the file back and compare every tensor and every key but those that only people read.

        Raises:
            ExportError: the file is damaged or no GGUF, or this checkpoint could not have been exported.
        """
        plan = self.planned(checkpoint)
        keys = {name: value for name, value in self._keys(checkpoint, plan).items() if name not in _LABELS}
        return verify_gguf(Path(path), checkpoint, plan, keys, lambda done, total: self.show("verifying", done, total))

    def _keys(self, checkpoint: Checkpoint, plan: GGUFPlan) -> dict[str, Any]:
        """Keys of the file but its architecture, in their order."""
        return {**general_keys(checkpoint, plan), **describe_settings(self.params, _STATED), **plan.metadata}
