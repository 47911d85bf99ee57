"""The exporter: check, export, verify."""

from pathlib import Path

from edgerazor.core.contracts import Checkpoint, ExportReport, Progress, VerifyReport
from edgerazor.errors import ExportError
from edgerazor.plugins.exporters.params import GGUFParams

try:
    from edgerazor.plugins.exporters.gguf.write import replaced_file, write_gguf
except ModuleNotFoundError as error:
    if error.name != "gguf":
        raise
    raise ImportError("the package gguf is not installed: pip install 'edgerazor[gguf]'") from error

from edgerazor.plugins.exporters.gguf.plan import ExportPlan, plan_export
from edgerazor.plugins.exporters.gguf.report import general_keys, make_report
from edgerazor.plugins.exporters.gguf.verify import verify_gguf


class GGUFExporter:
    """Packs codes and scales into GGUF blocks; whatever a block cannot hold exactly is refused.

    Attributes:
        progress: called with what is being done, tensors finished, and tensors in all; None: nobody looks.
    """

    progress: Progress | None = None

    def __init__(self, params: GGUFParams):
        self.params = params
        self._planned: tuple[Checkpoint, ExportPlan] | None = None

    def check(self, checkpoint: Checkpoint) -> None:
        """Raise ExportError with one line for everything that cannot be held losslessly; nothing is written."""
        self._plan(checkpoint)

    def export(self, checkpoint: Checkpoint, path: Path) -> ExportReport:
        """Write the file beside `path`, then rename it.

        Raises:
            ExportError: as `check`, or the file cannot be written; nothing partial is left then.
        """
        plan = self._plan(checkpoint)
        keys = {**general_keys(checkpoint, plan), **plan.metadata}
        with replaced_file(Path(path)) as temporary:
            write_gguf(
                temporary,
                plan.architecture.name,
                keys,
                plan.entries,
                checkpoint,
                lambda done, total: self._show("writing", done, total),
            )
        return make_report(Path(path), plan)

    def verify(self, path: Path, checkpoint: Checkpoint) -> VerifyReport:
        """Read the file back and compare every tensor, the digest, and the keys of model and tokenizer.

        Raises:
            ExportError: the file is damaged or no GGUF, or this checkpoint could not have been exported.
        """
        plan = self._plan(checkpoint)
        return verify_gguf(Path(path), checkpoint, plan, lambda done, total: self._show("verifying", done, total))

    def _plan(self, checkpoint: Checkpoint) -> ExportPlan:
        """The plan of a checkpoint, made once: check, export and verify follow each other."""
        if self._planned is None or self._planned[0] is not checkpoint:
            plan = plan_export(checkpoint, self.params, lambda done, total: self._show("checking", done, total))
            if plan.problems:
                raise ExportError("\n".join(plan.problems))
            self._planned = checkpoint, plan
        return self._planned[1]

    def _show(self, what: str, done: int, total: int) -> None:
        if self.progress is not None:
            self.progress(what, done, total)
