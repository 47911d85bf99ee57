"""GPTQ as its paper has it, the baseline of the publication, beside the library's own calibrated rounding.

Frantar et al. 2022, arXiv:2210.17323: decoder layer by decoder layer; the matrices of one are rounded on the inputs
that the rounded layers before it give them, column by column, each column's error spread over those that follow. Scales
are the quantizer's, of the columns as they are when a group begins; embedding and head are rounded as they are. No
scale is searched for, no code chosen twice, and no matrix makes up for errors made before it.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from edgerazor.calibrate.decoder import decoder_layers, product_rows
from edgerazor.calibrate.pack import FoundCodes, calibration_rows
from edgerazor.checkpoint.pack import write_with_tokenizer
from edgerazor.core.apply import apply_plan
from edgerazor.core.contracts import Quantizer
from edgerazor.core.latent_weights import limits
from edgerazor.core.plan import build_plan
from edgerazor.core.registry import Registry
from edgerazor.core.tensor import QuantizedTensor
from edgerazor.models.load import Models
from edgerazor.schemas.data import DataSection
from edgerazor.schemas.recipe import Recipe

DAMPING = 0.01


@torch.no_grad()
def pack_gptq(recipe: Recipe, *, registry: Registry, output: Path, data: DataSection, samples: int) -> None:
    """Write a packed checkpoint of a small model, which is in memory whole.

    Args:
        recipe: with quantizers whose codes are evenly spaced and whose scales depend on their group alone.
        registry: loaded plugins.
        output: free folder.
        data: texts to round on, `samples` rows at most.
    """
    source = Models(recipe.model, registry).student
    model: Any = source.load(torch.float32).eval()
    plan = build_plan(model, recipe.quantization, adapter=source.adapter, registry=registry)
    apply_plan(model, plan, registry=registry)
    rows = calibration_rows(source, data, samples)
    codes: dict[str, QuantizedTensor] = {}
    for layer in decoder_layers(plan, model):
        names = [entry.name for entry in plan.quantized if entry.name.startswith(f"{layer}.")]
        moments = _moments(model, names, rows)
        for name in names:
            matrix = model.get_submodule(name)
            codes[name] = gptq_codes(matrix.weight, moments[name], matrix.weight_quantizer)
            matrix.weight.copy_(codes[name].dequantize(torch.float32))
            matrix.weight_quantizer = None
    fresh: Any = source.load(torch.float32)
    apply_plan(fresh, plan, registry=registry)
    for name, found in codes.items():
        fresh.get_submodule(name).weight_quantizer = FoundCodes(f"{name}.weight", lambda found=found: found)
    write_with_tokenizer(source, fresh, output, recipe=recipe, plan=plan, registry=registry)


def _moments(model: Any, names: Sequence[str], rows: Sequence[Tensor]) -> dict[str, Tensor]:
    """Σ x xᵀ of the inputs of some matrices, in the model as it is, float64."""
    sums: dict[str, Tensor] = {}

    def add(name: str, matrix: Any, x: Tensor) -> None:
        given = product_rows(matrix, x).double()
        sums[name] = sums.get(name, 0) + given.T @ given  # type: ignore[operator]

    hooks = [
        model.get_submodule(name).register_forward_pre_hook(lambda matrix, args, name=name: add(name, matrix, args[0]))
        for name in names
    ]
    for row in rows:
        model(row)
    for hook in hooks:
        hook.remove()
    return sums


def gptq_codes(weight: Tensor, moments: Tensor, quantizer: Quantizer) -> QuantizedTensor:
    """Codes and scales of a weight `[R, C]`, float32, for second moments of its inputs, float64 `[C, C]`."""
    damped = moments + DAMPING * moments.diagonal().mean() * torch.eye(len(moments), dtype=moments.dtype)
    factor = torch.linalg.cholesky(torch.cholesky_inverse(torch.linalg.cholesky(damped)), upper=True).float()
    plain, work = quantizer.quantize(weight), weight.clone()
    size, groups = plain.group_size, plain.scale.shape[-1]
    lowest, highest = limits(plain.qmax, groups, quantizer)
    codes, scale = torch.empty_like(plain.codes), torch.empty_like(plain.scale)
    for column in range(weight.shape[1]):
        group = column // size
        if column % size == 0:
            scale[:, group] = quantizer.quantize(work).scale[:, group]
        step = scale[:, group].float()
        code = torch.round(work[:, column] / step).clamp_(lowest[:, group], highest[:, group])
        error = (work[:, column] - code * step) / factor[column, column]
        work[:, column:] -= error.unsqueeze(1) * factor[column, column:]
        codes[:, column] = code.to(torch.int8)
    return QuantizedTensor(codes, scale, plain.qmax, size)
