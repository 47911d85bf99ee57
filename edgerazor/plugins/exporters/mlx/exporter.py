"""The exporter of MLX folders: what is planned, written and compared."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgerazor.core.contracts import Checkpoint, ComparisonResult, Exporter, ExportResult, NamedTensors
from edgerazor.plugins.exporters.hugging_face import FILES, read_settings
from edgerazor.plugins.exporters.mlx.plan import MLXPlan, plan_export
from edgerazor.plugins.exporters.mlx.report import describe_export
from edgerazor.plugins.exporters.mlx.verify import verify_folder
from edgerazor.plugins.exporters.mlx.write import CARD, write_folder


class MLXExporter(Exporter[MLXPlan]):
    """Packs codes and scales into affine groups; whatever MLX or mlx_lm cannot hold exactly is refused."""

    kind = "MLX"
    files = frozenset({CARD, *FILES})

    def plan(self, checkpoint: Checkpoint, tensors: NamedTensors) -> MLXPlan:
        """Bits, groups and configuration; see `plan_export`."""
        return plan_export(checkpoint, self.params, tensors)

    def write(self, checkpoint: Checkpoint, plan: MLXPlan, path: Path) -> None:
        """Write the folder, a tensor at a time."""
        write_folder(path, checkpoint, plan, self.params, lambda done, total: self.show("writing", done, total))

    def describe(self, checkpoint: Checkpoint, plan: MLXPlan, path: Path) -> ExportResult:
        """Size of the folder, bits per weight by layout, and remarks."""
        return describe_export(path, checkpoint, plan)

    def stated_settings(self, path: Path) -> Mapping[str, Any]:
        """What the card says."""
        return read_settings(Path(path) / CARD)

    def verify(self, path: Path, checkpoint: Checkpoint) -> ComparisonResult:
        """Dequantize every matrix by MLX and compare it, the other tensors, the configuration and the digest.

        Raises:
            ExportError: the folder is damaged or no export, or this checkpoint could not have been exported.
        """
        plan = self.planned(checkpoint)
        return verify_folder(Path(path), checkpoint, plan, lambda done, total: self.show("verifying", done, total))
