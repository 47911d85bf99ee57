"""Where a student begins: at the 16-bit weights, at calibrated rounding, or at a packed checkpoint."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from edgerazor.checkpoint import PackedCheckpoint, open_checkpoint, verify_checkpoint
from edgerazor.core.latent_weights import set_latent_weights
from edgerazor.core.module_plan import ModulePlan
from edgerazor.core.plan import Plan
from edgerazor.core.registry import Registry
from edgerazor.core.tensor import QuantizedTensor, mean_bits
from edgerazor.data import Data
from edgerazor.errors import CheckpointError, PlanError
from edgerazor.schemas.paths import local_path
from edgerazor.schemas.training import TrainingSection, start_fault
from edgerazor.training.calibrated_start import share_calibrated_start


def start_student(
    student: Any, plan: Plan, training: TrainingSection, data: Data, registry: Registry, output: Path
) -> None:
    """Move the weights of a student, in place, to where its training begins.

    Args:
        student: the 16-bit model in float32 with the plan applied.
        plan: of the student.
        training: of the recipe.
        data: whose first rows are calibrated on.
        registry: loaded plugins.
        output: folder of the run.

    Raises:
        CheckpointError, PlanError: as `share_calibrated_start` and `start_packed`.
    """
    if training.start == "calibrated":
        share_calibrated_start(student, plan, training, data.train, output)
    elif training.start != "model":
        start_packed(student, plan, open_start(training.start, registry))


def open_start(name: str, registry: Registry) -> PackedCheckpoint:
    """The packed checkpoint that `training.start` names, whose files are what was written.

    Raises:
        CheckpointError: there is none of that name, or it is damaged.
    """
    if fault := start_fault(name):
        raise CheckpointError(fault)
    try:
        checkpoint = open_checkpoint(local_path(name), registry=registry)
        verify_checkpoint(checkpoint.folder, registry=registry).raise_if_damaged()
    except CheckpointError as error:
        raise CheckpointError(f"training.start: {error}") from error
    return checkpoint


@torch.no_grad()
def start_packed(student: Any, plan: Plan, checkpoint: PackedCheckpoint) -> None:
    """Give a student the weights of a packed checkpoint, in place, so that it computes what that computes, to the bit.

    Latent weights stay where they were, as far as the codes and scales of the checkpoint allow; what is not quantized
    is as the checkpoint has it.

    Args:
        student: float32, whole, with the plan applied.
        plan: of the student.
        checkpoint: of a model of the same shape, quantized by the same plan.

    Raises:
        CheckpointError: a weight is missing or has another shape, or is quantized in one of both only.
        PlanError: a quantizer rounds no weights to the codes and scales of the checkpoint.
    """
    entries = {entry.name: entry for entry in plan.quantized}
    where, stored = f"training.start: {checkpoint.folder}", checkpoint.section.modules
    sides = ("at 16 bit there and quantized", "quantized there and at 16 bit")
    if differing := sorted(entries.keys() ^ stored.keys()):
        lines = (f"{where}: {name} is {sides[name in stored]} by the recipe" for name in differing)
        raise CheckpointError("\n".join(lines))
    for name, entry in entries.items():
        codes = checkpoint.read(f"{name}.weight")
        assert isinstance(codes, QuantizedTensor)
        _check_fits(codes, entry, where)
        try:
            set_latent_weights(student, entry, codes)
        except PlanError as error:
            raise PlanError(f"{where}: {error}; they were found in another way") from error
    _copy_rest(student, {entry.parameter_name for entry in entries.values()}, checkpoint, where)


def _check_fits(codes: QuantizedTensor, entry: ModulePlan, where: str) -> None:
    """Raise CheckpointError unless codes have the shape, the groups and the widths of the plan."""
    if codes.codes.shape != entry.matrices.stacked or codes.group_size != entry.group_size:
        raise CheckpointError(
            f"{where}: {entry.name} is {list(codes.codes.shape)} in groups of {codes.group_size}, expected "
            f"{list(entry.matrices.stacked)} in groups of {entry.group_size}"
        )
    found, wanted = codes.bits_per_weight() - 16 / codes.group_size, mean_bits(entry.widths, codes.symmetric)
    if abs(found - wanted) > 1e-6:
        raise CheckpointError(f"{where}: {entry.name} has codes of {found:.3g} bits, expected {wanted:.3g}")


def _copy_rest(student: nn.Module, quantized: set[str], checkpoint: PackedCheckpoint, where: str) -> None:
    """Parameters that are not quantized, and the buffers that a checkpoint holds."""
    kept = student.state_dict().keys()
    rest: list[tuple[str, Tensor]] = [pair for pair in student.named_parameters() if pair[0] not in quantized]
    rest += [pair for pair in student.named_buffers() if pair[0] in kept]
    for name, tensor in rest:
        header = checkpoint.headers.get(name)
        if header is None or header.shape != tuple(tensor.shape):
            found = "is missing" if header is None else f"is {list(header.shape)}"
            raise CheckpointError(f"{where}: {name} {found}, expected {list(tensor.shape)}")
        tensor.copy_(checkpoint.load(name))
