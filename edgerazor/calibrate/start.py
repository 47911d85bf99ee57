"""Training that begins at calibrated rounding: latent weights whose codes and scales are those that GPTQ found."""

import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from edgerazor.calibrate.classifier import round_classifier
from edgerazor.calibrate.decoder import Decoder, decoder_layers
from edgerazor.calibrate.gptq import calibrated, limits
from edgerazor.calibrate.journal import Journal
from edgerazor.calibrate.walk import round_layers
from edgerazor.core.contracts import Quantizer
from edgerazor.core.plan import Plan
from edgerazor.core.tensor import QuantizedTensor
from edgerazor.errors import PlanError

_INSIDE = 0.49  # of a step: as far from its code as a latent weight may be


def start_calibrated(model: Any, plan: Plan, rows: list[Tensor]) -> None:
    """Replace latent weights of decoder layers and head, or of a classifier, by those of calibrated rounding, in place.

    Quantized, they have the codes and scales that GPTQ finds when no scale is larger than the quantizer's and the
    largest weight of every group keeps the outermost code. Apart from that they are where the weights were when they
    were rounded.

    Args:
        model: float32, whole, with the plan applied.
        plan: of the model.
        rows: token ids `[1, T]`; of a classifier pictures `[1, channels, height, width]`.

    Raises:
        PlanError: the recipe quantizes no matrix of a decoder layer, or a quantizer has no such latent weights.
    """
    if rows[0].ndim == 4:
        round_classifier(model, plan, rows, find=latent_weights)
        return
    if not decoder_layers(plan, model):
        raise PlanError("training.start: calibrated, but the recipe quantizes no matrix of a decoder layer")
    decoder = Decoder(model, plan, None)
    with tempfile.TemporaryDirectory() as folder:
        round_layers(decoder, rows, Journal(Path(folder) / "journal", rows, {}), find=latent_weights)
    for entries in decoder.entries.values():
        for entry in entries:
            decoder.matrix(entry).weight_quantizer = decoder.quantizers[entry.name]


def latent_weights(weight: Tensor, moments: Tensor, quantizer: Quantizer) -> tuple[QuantizedTensor, Tensor]:
    """Codes and scales of calibrated rounding, and weights `[R, C]`, float32, that the quantizer rounds to just those.

    Args:
        weight, moments, quantizer: as for `edgerazor.calibrate.gptq.calibrated_codes`.

    Raises:
        PlanError: as there, or no such weights were found.
    """
    codes, values = calibrated(weight, moments, quantizer, reachable=True)
    lowest, highest = (bound.unsqueeze(-1) for bound in limits(codes, quantizer))
    groups = codes.codes.float().unflatten(-1, (-1, codes.group_size))
    step = codes.scale.float().unsqueeze(-1)
    steps = values.unflatten(-1, (-1, codes.group_size)) / step
    steps = torch.minimum(torch.maximum(steps, groups - _INSIDE), groups + _INSIDE)
    of_extremes = (_pinned(steps, groups, lowest, highest) * step).flatten(-2)
    multiplier = getattr(quantizer.params, "scale_multiplier", 2.0)
    of_means = (_with_mean(steps, groups, 1 / multiplier) * step).flatten(-2)
    same = _same_groups(quantizer.quantize(of_extremes), codes)
    latent = torch.where(same.repeat_interleave(codes.group_size, dim=-1), of_extremes, of_means)
    if not bool(_same_groups(quantizer.quantize(latent), codes).all()):
        raise PlanError(f"'{quantizer.params.name}': no latent weights give the codes of calibrated rounding")
    return codes, latent


def _pinned(steps: Tensor, groups: Tensor, lowest: Tensor, highest: Tensor) -> Tensor:
    """For scales of the largest weight: none reaches further than the outermost codes, which one reaches exactly."""
    steps = torch.minimum(torch.maximum(steps, lowest), highest)
    outermost = (groups == lowest) | (groups == highest)
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
    codes = (found.codes == wanted.codes).unflatten(-1, (-1, wanted.group_size)).all(dim=-1)
    return codes & (found.scale == wanted.scale)
