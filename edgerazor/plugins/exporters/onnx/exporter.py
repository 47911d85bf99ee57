"""The exporter of ONNX folders: what is planned, written and compared."""

import gc
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from edgerazor.core.contracts import Checkpoint, ComparisonResult, Exporter, ExportResult, NamedTensors
from edgerazor.errors import install_hint

try:
    import onnx_ir as ir
    import onnxscript  # noqa: F401
except ModuleNotFoundError as error:
    if error.name not in ("onnx_ir", "onnxscript", "onnx"):
        raise
    raise ImportError(f"the package {error.name} is not installed: {install_hint('onnx')}") from error

from edgerazor.plugins.exporters.common import describe_origin
from edgerazor.plugins.exporters.onnx.folder import DATA, FILES, MODEL, write_companions
from edgerazor.plugins.exporters.onnx.graph import simplify_reshapes
from edgerazor.plugins.exporters.onnx.lowering import Place, Places, lower
from edgerazor.plugins.exporters.onnx.model import build_model
from edgerazor.plugins.exporters.onnx.plan import ONNXPlan, plan_export
from edgerazor.plugins.exporters.onnx.report import describe_export
from edgerazor.plugins.exporters.onnx.trace import trace_model
from edgerazor.plugins.exporters.onnx.trace_classifier import trace_classifier
from edgerazor.plugins.exporters.onnx.verify import TENSORS, verify_folder


class ONNXExporter(Exporter[ONNXPlan]):
    """Packs codes and scales into the operands of stock operators; whatever they cannot hold exactly is refused."""

    kind = "ONNX"
    files = FILES

    def plan(self, checkpoint: Checkpoint, tensors: NamedTensors) -> ONNXPlan:
        """Operators and blocks; see `plan_export`."""
        return plan_export(checkpoint, self.params, tensors)

    def write(self, checkpoint: Checkpoint, plan: ONNXPlan, path: Path) -> None:
        """Trace the model, put packed operands in its place, and write the folder.

        Raises:
            ExportError: the model cannot be traced.
        """
        path.mkdir()
        self.show("tracing", 0, 1)
        built, portable = build_model(checkpoint, plan), self.params.portable
        model = self._traced(built, plan)
        # From here on the graph alone holds operands, and lets go of those that it joins.
        del built
        gc.collect()
        self.show("tracing", 1, 1)
        level = self.params.accuracy_level
        places = lower(model, plan.matrices, accuracy_level=level, use_standard=portable)
        simplify_reshapes(model)
        model.metadata_props.update(describe_origin(checkpoint))
        model.metadata_props[TENSORS] = json.dumps(_describe_places(places, plan))
        self.show("writing", 0, 1)
        ir.save(model, path / MODEL, external_data=DATA)
        write_companions(path, checkpoint, plan, self.params)
        self.show("writing", 1, 1)

    def _traced(self, model: Any, plan: ONNXPlan) -> ir.Model:
        if plan.facts.image:
            return trace_classifier(model, plan.facts)
        last, portable = self.params.logits == "last", self.params.portable
        return trace_model(model, plan.facts, plan.context_length, last=last, portable=portable)

    def describe(self, checkpoint: Checkpoint, plan: ONNXPlan, path: Path) -> ExportResult:
        """Size of the folder, bits per weight by width, and remarks."""
        return describe_export(path, checkpoint, plan, self.params)

    def verify(self, path: Path, checkpoint: Checkpoint) -> ComparisonResult:
        """Read codes and scales back out of the graph and compare them, the digest and the other tensors.

        Raises:
            ExportError: the folder is damaged or no export.
        """
        return verify_folder(Path(path), checkpoint, lambda done, total: self.show("verifying", done, total))


def _describe_places(places: Places, plan: ONNXPlan) -> dict[str, list[dict[str, Any]]]:
    """Where the rows of every matrix lie, as the file says it to who reads it back."""
    found: dict[str, list[dict[str, Any]]] = {}
    for (module, index), known in places.items():
        row_group = plan.matrices[module].row_groups[index]
        described = {
            "count": row_group.count,
            "bits": row_group.bits,
            "block": row_group.block,
            "period": row_group.rows.period,
            "wide": row_group.rows.wide,
            "rows": list(row_group.rows.index),
        }
        found.setdefault(module, []).extend({**_described(place), **described} for place in known)
    return found


def _described(place: Place) -> dict[str, Any]:
    """A key that only convolutions have is left out of other folders, whose bytes stay as they always were."""
    return {key: value for key, value in asdict(place).items() if key != "signed" or value}
