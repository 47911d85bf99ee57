"""The exporter: check, export, verify."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from edgerazor import __version__
from edgerazor.core.contracts import Checkpoint, ExportReport, Progress, VerifyReport
from edgerazor.errors import ExportError
from edgerazor.plugins.exporters.params import ONNXParams

try:
    import onnx_ir as ir
    import onnxscript  # noqa: F401
except ModuleNotFoundError as error:
    if error.name not in ("onnx_ir", "onnxscript", "onnx"):
        raise
    raise ImportError(f"the package {error.name} is not installed: pip install 'edgerazor[onnx]'") from error

from edgerazor.plugins.exporters.onnx.folder import DATA, MODEL, replaced_folder, write_companions
from edgerazor.plugins.exporters.onnx.graph import simplify_reshapes
from edgerazor.plugins.exporters.onnx.lowering import Places, lower
from edgerazor.plugins.exporters.onnx.model import build_model
from edgerazor.plugins.exporters.onnx.plan import ExportPlan, plan_export
from edgerazor.plugins.exporters.onnx.report import make_report
from edgerazor.plugins.exporters.onnx.trace import trace_model
from edgerazor.plugins.exporters.onnx.verify import DIGEST, TENSORS, verify_folder


class ONNXExporter:
    """Packs codes and scales into the operands of stock operators; whatever they cannot hold exactly is refused.

    Attributes:
        progress: called with what is being done, steps finished, and steps in all; None: nobody looks.
    """

    progress: Progress | None = None

    def __init__(self, params: ONNXParams):
        self.params = params
        self._planned: tuple[Checkpoint, ExportPlan] | None = None

    def check(self, checkpoint: Checkpoint) -> None:
        """Raise ExportError with one line for everything that cannot be held losslessly; nothing is written."""
        self._plan(checkpoint)

    def export(self, checkpoint: Checkpoint, path: Path) -> ExportReport:
        """Trace the model, write a folder beside `path`, then rename it.

        Raises:
            ExportError: as `check`, the model cannot be traced, or the folder cannot be written; nothing is left then.
        """
        plan = self._plan(checkpoint)
        with replaced_folder(Path(path)) as folder:
            self._show("tracing", 0, 3)
            built = build_model(checkpoint, plan)
            last, portable = self.params.logits == "last", self.params.portable
            model = trace_model(built, plan.context_length, last=last, portable=portable)
            self._show("simplifying", 1, 3)
            level = self.params.accuracy_level
            places = lower(model, plan.matrices, accuracy_level=level, use_standard=portable)
            simplify_reshapes(model)
            model.metadata_props.update(
                {
                    "edgerazor.version": __version__,
                    DIGEST: checkpoint.digest,
                    "edgerazor.recipe": json.dumps(checkpoint.recipe, sort_keys=True),
                    TENSORS: json.dumps(_describe_places(places, plan)),
                }
            )
            self._show("writing", 2, 3)
            ir.save(model, folder / MODEL, external_data=DATA)
            write_companions(folder, checkpoint, plan, self.params)
            self._show("writing", 3, 3)
        return make_report(Path(path), checkpoint, plan, self.params)

    def verify(self, path: Path, checkpoint: Checkpoint) -> VerifyReport:
        """Read codes and scales back out of the graph and compare them, the digest and the other tensors.

        Raises:
            ExportError: the folder is damaged or no export.
        """
        return verify_folder(Path(path), checkpoint, lambda done, total: self._show("verifying", done, total))

    def _plan(self, checkpoint: Checkpoint) -> ExportPlan:
        """The plan of a checkpoint, made once: check and export follow each other."""
        if self._planned is None or self._planned[0] is not checkpoint:
            plan = plan_export(checkpoint, self.params, lambda done, total: self._show("checking", done, total))
            if plan.problems:
                raise ExportError("\n".join(plan.problems))
            self._planned = checkpoint, plan
        return self._planned[1]

    def _show(self, what: str, done: int, total: int) -> None:
        if self.progress is not None:
            self.progress(what, done, total)


def _describe_places(places: Places, plan: ExportPlan) -> dict[str, list[dict[str, Any]]]:
    """Where the rows of every matrix lie, as the file says it to who reads it back."""
    found: dict[str, list[dict[str, Any]]] = {}
    for (module, index), known in places.items():
        part = plan.matrices[module].parts[index]
        described = {
            "count": part.count,
            "bits": part.bits,
            "block": part.block,
            "period": part.rows.period,
            "wide": part.rows.wide,
            "rows": list(part.rows.index),
        }
        found.setdefault(module, []).extend({**asdict(place), **described} for place in known)
    return found
