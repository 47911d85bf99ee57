"""Exporters with one fault each; the sound one writes a safetensors file."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar, Literal

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from edgerazor.core.contracts import (
    Checkpoint,
    ComparisonResult,
    Exporter,
    ExportPlan,
    ExportResult,
    NamedTensors,
)
from edgerazor.core.tensor import QuantizedTensor
from edgerazor.errors import ExportError
from edgerazor.schemas.components import ExporterParams
from edgerazor.testing import exporter as laws
from tests.testing.faults import law_of


class PlainParams(ExporterParams):
    """A file of codes, scales and everything else."""

    target: ClassVar[str] = "tests.testing.faulty_exporters:Plain"
    suffixes: ClassVar[tuple[str, ...]] = (".plain",)
    name: Literal["plain"] = "plain"


class Plain(Exporter[ExportPlan]):
    """Sound."""

    def plan(self, checkpoint: Checkpoint, tensors: NamedTensors) -> ExportPlan:
        return ExportPlan()

    def write(self, checkpoint: Checkpoint, plan: ExportPlan, path: Path) -> None:
        save_file(self.stored(checkpoint), path)

    def tensors(self, checkpoint: Checkpoint, name: str) -> dict[str, Tensor]:
        value = checkpoint.read(name)
        if not isinstance(value, QuantizedTensor):
            return {name: value}
        return {f"{name}/codes": value.codes, f"{name}/scale": value.scale}

    def stored(self, checkpoint: Checkpoint) -> dict[str, Tensor]:
        return {key: tensor for name in checkpoint.names() for key, tensor in self.tensors(checkpoint, name).items()}

    def verify(self, path: Path, checkpoint: Checkpoint) -> ComparisonResult:
        try:
            found = load_file(path)
        except SafetensorError as error:
            raise ExportError(f"{path}: cannot be read: {error}") from error
        names = list(checkpoint.names())
        different = tuple(name for name in names if not self.same(found, name, checkpoint))
        return ComparisonResult(len(names), different)

    def same(self, found: Mapping[str, Tensor], name: str, checkpoint: Checkpoint) -> bool:
        expected = self.tensors(checkpoint, name).items()
        return all(key in found and torch.equal(found[key], value) for key, value in expected)


@law_of(laws.a_check_writes_nothing)
class CheckingByExporting(Plain):
    def plan(self, checkpoint: Checkpoint, tensors: NamedTensors) -> ExportPlan:
        (checkpoint.folder / "checked").touch()
        return super().plan(checkpoint, tensors)


@law_of(laws.an_export_is_what_its_result_says)
class CountingWithoutTheHeader(Plain):
    def export(self, checkpoint: Checkpoint, path: Path) -> ExportResult:
        super().export(checkpoint, path)
        return ExportResult(path, sum(tensor.nbytes for tensor in load_file(path).values()), 8.0)


@law_of(laws.an_export_is_what_its_result_says)
class LeavingALogBehind(Plain):
    def export(self, checkpoint: Checkpoint, path: Path) -> ExportResult:
        path.with_suffix(".log").write_text("exported")
        return super().export(checkpoint, path)


@law_of(laws.its_files_are_known_again)
class OfAnotherSuffix(Plain):
    """Declared with other suffixes than its path has, by the test."""


@law_of(laws.an_export_equals_its_checkpoint)
class RoundingScales(Plain):
    def stored(self, checkpoint: Checkpoint) -> dict[str, Tensor]:
        found = super().stored(checkpoint).items()
        return {key: value.bfloat16().half() if key.endswith("scale") else value for key, value in found}


@law_of(laws.exporting_again_replaces_what_was_there)
class RefusingToReplace(Plain):
    def export(self, checkpoint: Checkpoint, path: Path) -> ExportResult:
        if path.exists():
            raise ExportError(f"{path}: exists")
        return super().export(checkpoint, path)


@law_of(laws.verify_names_every_tensor_that_differs)
class ComparingShapes(Plain):
    def same(self, found: Mapping[str, Tensor], name: str, checkpoint: Checkpoint) -> bool:
        return all(found[key].shape == value.shape for key, value in self.tensors(checkpoint, name).items())


@law_of(laws.verify_names_every_tensor_that_differs)
class ComparingMatricesAlone(Plain):
    def same(self, found: Mapping[str, Tensor], name: str, checkpoint: Checkpoint) -> bool:
        return name in found or super().same(found, name, checkpoint)


@law_of(laws.verify_finds_a_flipped_byte)
class ComparingTheLastRow(Plain):
    def same(self, found: Mapping[str, Tensor], name: str, checkpoint: Checkpoint) -> bool:
        return all(torch.equal(found[key][-1:], value[-1:]) for key, value in self.tensors(checkpoint, name).items())


@law_of(laws.a_failed_export_leaves_everything_as_it_was)
class WritingInPlace(Plain):
    def export(self, checkpoint: Checkpoint, path: Path) -> ExportResult:
        path.write_bytes(b"")
        return super().export(checkpoint, path)


@law_of(laws.a_failed_export_leaves_everything_as_it_was)
class LeavingWhatItBegan(Plain):
    def stored(self, checkpoint: Checkpoint) -> dict[str, Tensor]:
        begun = Path(self.params.path).with_suffix(".begun")
        begun.mkdir(exist_ok=True)
        found = super().stored(checkpoint)
        shutil.rmtree(begun)
        return found

    def export(self, checkpoint: Checkpoint, path: Path) -> ExportResult:
        self.params = self.params.model_copy(update={"path": str(path)})
        return super().export(checkpoint, path)


@law_of(laws.a_checkpoint_is_planned_once)
class PlanningAnew(Plain):
    def planned(self, checkpoint: Checkpoint) -> ExportPlan:
        self._planned = None
        return super().planned(checkpoint)


@law_of(laws.a_refusal_names_everything_that_does_not_fit)
class RefusingOneByOne(Plain):
    def plan(self, checkpoint: Checkpoint, tensors: NamedTensors) -> ExportPlan:
        for name, value in tensors:
            numbers = value.scale if isinstance(value, QuantizedTensor) else value
            if not bool(torch.isfinite(numbers).all()):
                raise ExportError(f"{name}: is not finite")
        return ExportPlan()


@law_of(laws.progress_goes_forward)
class CountingDown(Plain):
    def write(self, checkpoint: Checkpoint, plan: ExportPlan, path: Path) -> None:
        self.show("writing", 2, 2)
        self.show("writing", 1, 2)
        super().write(checkpoint, plan, path)


@law_of(laws.progress_goes_forward)
class StoppingShort(Plain):
    def write(self, checkpoint: Checkpoint, plan: ExportPlan, path: Path) -> None:
        self.show("writing", 1, 2)
        super().write(checkpoint, plan, path)
