"""The exporter of folders in the format compressed-tensors: what is planned, written and compared."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgerazor.core.contracts import Checkpoint, ComparisonResult, Exporter, ExportResult, NamedTensors
from edgerazor.errors import install_hint

try:
    import compressed_tensors  # noqa: F401
except ModuleNotFoundError as error:
    if error.name != "compressed_tensors":
        raise
    hint = install_hint("compressed-tensors")
    raise ImportError(f"the package compressed-tensors is not installed: {hint}") from error

from edgerazor.plugins.exporters.compressed_tensors.plan import CompressedTensorsPlan, plan_export
from edgerazor.plugins.exporters.compressed_tensors.report import describe_export
from edgerazor.plugins.exporters.compressed_tensors.verify import verify_folder
from edgerazor.plugins.exporters.compressed_tensors.write import write_folder
from edgerazor.plugins.exporters.hugging_face import FILES, read_settings
from edgerazor.plugins.exporters.params import CompressedTensorsParams


class CompressedTensorsExporter(Exporter[CompressedTensorsPlan]):
    """Packs codes into int32 words beside their scales; whatever these cannot hold exactly is refused."""

    kind = "compressed-tensors"
    files = FILES | {CompressedTensorsParams.marker}

    def plan(self, checkpoint: Checkpoint, tensors: NamedTensors) -> CompressedTensorsPlan:
        """Widths and groups; see `plan_export`."""
        return plan_export(checkpoint, self.params, tensors)

    def write(self, checkpoint: Checkpoint, plan: CompressedTensorsPlan, path: Path) -> None:
        """Write the folder; see `write_folder`."""
        write_folder(path, checkpoint, plan, self.params, lambda done, total: self.show("writing", done, total))

    def describe(self, checkpoint: Checkpoint, plan: CompressedTensorsPlan, path: Path) -> ExportResult:
        """Size of the folder, bits per weight by width, and remarks."""
        return describe_export(path, checkpoint, plan, self.params)

    def verify(self, path: Path, checkpoint: Checkpoint) -> ComparisonResult:
        """Decompress every matrix and compare it, the other tensors, config.json and the tokenizer.

        Raises:
            ExportError: the folder is damaged or no export.
        """
        return verify_folder(
            Path(path), checkpoint, self.params, lambda done, total: self.show("verifying", done, total)
        )

    def stated_settings(self, path: Path) -> Mapping[str, Any]:
        """The parameters in the folder's card.

        Raises:
            ExportError: it is damaged.
        """
        return read_settings(Path(path) / self.params.marker)
