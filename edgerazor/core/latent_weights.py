"""Weights that a quantizer rounds to codes and scales which were found elsewhere, so that training can begin there."""

from typing import Any

import torch
from torch import Tensor, nn

from edgerazor.core.contracts import Quantizer
from edgerazor.core.layers.matrices import Matrices
from edgerazor.core.layers.table import kind_named
from edgerazor.core.module_plan import ModulePlan
from edgerazor.core.tensor import QuantizedTensor
from edgerazor.errors import PlanError

# Of a step, how far from its code a latent weight begins, and how far it may be. Close to a threshold the first steps
# of training would take the code away again.
_NEAR, _INSIDE = 0.25, 0.49
_WEIGHTS_AT_ONCE = 2**24


@torch.no_grad()
def set_latent_weights(model: nn.Module, entry: ModulePlan, codes: QuantizedTensor) -> None:
    """Move the weight of a quantization-aware layer, in place, to where its quantizer gives these codes and scales.

    Args:
        model: with the plan applied.
        entry: of its plan.
        codes: `[R, C]`, of all matrices of the weight one below the other.

    Raises:
        PlanError: the quantizer rounds no weights to them; the message names the module.
    """
    kind = kind_named(entry.kind)
    layer: Any = kind.find(model, entry.name)
    quantizer, weight = kind.quantizer(layer), model.get_parameter(entry.parameter_name)
    assert quantizer is not None
    try:
        weight.copy_(latent_weights(codes, weight.float(), quantizer, kind.matrices(layer)))
    except PlanError as error:
        raise PlanError(f"{entry.name}: {error}") from error


def latent_weights(codes: QuantizedTensor, near: Tensor, quantizer: Quantizer, matrices: Matrices) -> Tensor:
    """Weights that round to just these codes and scales, and are otherwise where `near` is, as far as can be.

    Groups of `near` that round to them already stay as they are.

    Args:
        codes: `[R, C]`, of all matrices of a parameter one below the other.
        near: float32, the parameter that they were found for.
        quantizer: of one matrix.
        matrices: how the parameter reads.

    Returns:
        float32, of the shape of `near`.

    Raises:
        PlanError: the quantizer rounds no weights to these codes and scales.
    """
    rows_at_once = max(_WEIGHTS_AT_ONCE // matrices.columns, 1)
    found, start = [], 0
    for height in matrices.heights:
        heights = range(0, height, rows_at_once if quantizer.rows_independent else height)
        for first in heights:
            rows = slice(start + first, start + min(first + heights.step, height))
            part = QuantizedTensor(codes.codes[rows], codes.scale[rows], codes.qmax[rows], codes.group_size)
            found.append(_of_matrix(part, matrices.stack(near)[rows], quantizer))
        start += height
    return matrices.unstack(torch.cat(found))


def limits(qmax: Tensor, groups: int, quantizer: Quantizer) -> tuple[Tensor, Tensor]:
    """Lowest and highest code of every group, float32 `[R, G]`, for widths `[R]` or `[R, G]`."""
    highest = qmax.float().reshape(len(qmax), -1).expand(-1, groups)
    return -highest - int(not quantizer.symmetric), highest


def most_nonzero(quantizer: Quantizer, size: int) -> int:
    """How many weights of a ternary group of that size may have a code but 0, so that the quantizer gives its codes.

    Where the scale is the mean magnitude times m, magnitudes are 1/m of it in the mean, and above 1/2 for codes but 0.
    """
    params = quantizer.params
    multiplier = getattr(params, "scale_multiplier", None)
    if multiplier is None or getattr(params, "scale", "absmean") != "absmean":
        return size
    return max(min(int(size / (multiplier * (1 - _INSIDE))), size), 1)


def _of_matrix(codes: QuantizedTensor, near: Tensor, quantizer: Quantizer) -> Tensor:
    lowest, highest = (bound.unsqueeze(-1) for bound in limits(codes.qmax, codes.scale.shape[-1], quantizer))
    groups = codes.codes.float().unflatten(-1, (-1, codes.group_size))
    step = codes.scale.float().unsqueeze(-1)
    steps = near.unflatten(-1, (-1, codes.group_size)) / step
    steps = torch.minimum(torch.maximum(steps, groups - _NEAR), groups + _NEAR)
    outermost = groups == lowest
    if not quantizer.signed_scale:
        outermost |= groups == highest
    of_extremes = (_pinned(steps, groups, lowest, highest, outermost) * step).flatten(-2)
    multiplier = getattr(quantizer.params, "scale_multiplier", 2.0)
    of_means = (_with_mean(steps, groups, 1 / multiplier) * step).flatten(-2)
    latent = of_means
    for better in (of_extremes, near):
        same = _same_groups(quantizer.quantize(better), codes)
        latent = torch.where(same.repeat_interleave(codes.group_size, dim=-1), better, latent)
    if not bool(_same_groups(quantizer.quantize(latent), codes).all()):
        raise PlanError(f"'{quantizer.params.name}' rounds no weights to these codes and scales")
    return latent


def _pinned(steps: Tensor, groups: Tensor, lowest: Tensor, highest: Tensor, outermost: Tensor) -> Tensor:
    """For scales of the largest weight: none reaches further than the outermost codes, which one reaches exactly."""
    steps = torch.minimum(torch.maximum(steps, lowest), highest)
    reach = torch.maximum(steps / lowest, steps / highest).masked_fill(~outermost, -1.0)
    place = reach.argmax(dim=-1, keepdim=True)
    pinned = torch.where(outermost.gather(-1, place), groups.gather(-1, place), steps.gather(-1, place))
    return steps.scatter(-1, place, pinned)


def _with_mean(steps: Tensor, groups: Tensor, mean: float) -> Tensor:
    """For ternary scales of the mean: magnitudes move between the thresholds and infinity until their mean fits."""
    size = steps.abs().double()
    least = torch.where(groups == 0, 0.0, 1 - _INSIDE).double()
    total, floor, target = size.sum(-1, keepdim=True), least.sum(-1, keepdim=True), mean * size.shape[-1]
    large = torch.where(groups == 0, 0.0, size)
    grown = size + large * (target - total) / large.sum(-1, keepdim=True).clamp_min(1e-12)
    shrunk = least + (size - least) * (target - floor) / (total - floor).clamp_min(1e-12)
    signs = torch.where(groups == 0, steps.sign(), groups.sign())
    return (torch.where(total < target, grown, shrunk) * signs).float()


def _same_groups(found: QuantizedTensor, wanted: QuantizedTensor) -> Tensor:
    """bool `[R, G]`: groups whose codes and scale are those that are wanted."""
    if found.codes.shape != wanted.codes.shape or found.scale.shape != wanted.scale.shape:
        return torch.zeros_like(wanted.scale, dtype=torch.bool)
    codes = (found.codes == wanted.codes).unflatten(-1, (-1, wanted.group_size)).all(dim=-1)
    return codes & (found.scale == wanted.scale)
