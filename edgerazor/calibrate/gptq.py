"""GPTQ with our quantizers: codes column by column, each column's error spread over those that follow.

Frantar et al. 2022, arXiv:2210.17323: with H the second moments of a layer's inputs, the change of the output that
rounding a column makes is smallest if the later columns move by the error times a row of the Cholesky factor of H⁻¹.
Groups and widths are the quantizer's own. A scale is the quantizer's, of the columns as they are when their group
begins, or the part of it that makes the error smallest: by the same formula a column's squared error costs the inverse
square of the factor's diagonal element. The weight of a group that reaches furthest keeps the outermost code, so that
there are weights which the quantizer itself rounds to what is found, and training can begin at them. What is found is
then made better code by code (`edgerazor.calibrate.descent`).
"""

import torch
from torch import Tensor

from edgerazor.calibrate.descent import PASSES, descended
from edgerazor.calibrate.inputs import damped
from edgerazor.calibrate.scales import best_scale
from edgerazor.core.contracts import Quantizer
from edgerazor.core.latent_weights import limits
from edgerazor.core.layers.matrices import join_rows
from edgerazor.core.tensor import QuantizedTensor
from edgerazor.errors import PlanError

_BLOCK = 128
_ROWS_AT_ONCE = 4096  # more would leave the processor's cache at every column


def calibrated_codes(weight: Tensor, moments: Tensor, quantizer: Quantizer, passes: int = PASSES) -> QuantizedTensor:
    """Codes and scales of a weight `[R, C]`, for inputs with the second moments `[C, C]` (a sum over tokens).

    Args:
        weight: float32.
        moments: float32 or float64, symmetric; a column that is always zero may be anything.
        quantizer: gives groups, scales and widths; its codes have to be evenly spaced.
        passes: over all codes and scales, to choose them again when all are known.

    Raises:
        PlanError: they are not, or widths depend on what the weights are.
    """
    moments = damped(moments)
    factor, curvature = _inverse_factor(moments), moments.float()
    rows_at_once = _ROWS_AT_ONCE if quantizer.rows_independent else len(weight)
    parts = []
    for rows in weight.detach().float().split(rows_at_once):
        part, kept = _codes_of_rows(rows, factor, quantizer)
        parts.append(descended(rows, curvature, part, quantizer, kept, passes))
    return parts[0] if len(parts) == 1 else join_rows(parts)


def _codes_of_rows(weight: Tensor, factor: Tensor, quantizer: Quantizer) -> tuple[QuantizedTensor, Tensor]:
    """By the upper Cholesky factor of the inverse moments; and in each group the place of the code that is kept."""
    plain = quantizer.quantize(weight)
    lowest, highest = limits(plain.qmax, plain.scale.shape[-1], quantizer)
    if not torch.equal(_nearest(weight, plain.scale, lowest, highest).to(torch.int8), plain.codes):
        raise PlanError(f"'{quantizer.params.name}': calibrated rounding needs codes that are evenly spaced")
    importance = factor.diagonal() ** -2
    # Columns of the weight are rows here, so that one of them lies together in memory.
    work, low, high = (found.T.contiguous() for found in (weight, lowest, highest))
    codes, scale = torch.empty_like(work, dtype=torch.int8), torch.empty_like(low)
    kept = torch.empty_like(low, dtype=torch.int64)
    size, columns = plain.group_size, weight.shape[1]
    block = _columns_at_once(size)
    for start in range(0, columns, block):
        end = min(start + block, columns)
        errors = torch.zeros_like(work[start:end])
        for column in range(start, end):
            group, place = divmod(column, size)
            limit = low[group], high[group]
            if place == 0:
                inside = work[column : column + size].T.contiguous()
                own_scale = _group_scale(inside, work, plain, quantizer, group)
                scale[group] = best_scale(inside, own_scale, *limit, importance[column : column + size], quantizer)
                kept[group], reached = _outermost(inside, scale[group], *limit, quantizer)
            code = torch.round(work[column] / scale[group]).clamp_(*limit)
            code = torch.where(kept[group] == place, reached, code)
            codes[column] = code
            errors[column - start] = (work[column] - code * scale[group]) / factor[column, column]
            work[column + 1 : end].addr_(factor[column, column + 1 : end], errors[column - start], alpha=-1)
        work[end:].addmm_(factor[start:end, end:].T, errors, alpha=-1)
    found = QuantizedTensor(codes.T.contiguous(), scale.T.contiguous().to(plain.scale.dtype), plain.qmax, size)
    return found, kept.T.contiguous()


def codes_of(name: str, weight: Tensor, moments: Tensor, quantizer: Quantizer) -> QuantizedTensor:
    """As `calibrated_codes`, whose error then has the name of the matrix."""
    try:
        return calibrated_codes(weight, moments, quantizer)
    except PlanError as error:
        raise PlanError(f"{name}: {error}") from error


def _outermost(
    columns: Tensor, scale: Tensor, lowest: Tensor, highest: Tensor, quantizer: Quantizer
) -> tuple[Tensor, Tensor]:
    """Place in a group and code, each `[R]`, of the weight that reaches furthest; place -1 where none reaches."""
    low, high = lowest.unsqueeze(1), highest.unsqueeze(1)
    steps = columns / scale.unsqueeze(1)
    reach = steps / low if quantizer.signed_scale else torch.maximum(steps / high, steps / low)
    place = reach.argmax(dim=1, keepdim=True)
    code = torch.round(steps.gather(1, place))
    code = torch.minimum(torch.maximum(code, low), high)
    reaches = (code == low) | (code == high)
    return torch.where(reaches, place, -1).squeeze(1), code.squeeze(1)


def _columns_at_once(size: int) -> int:
    """Columns after which the later ones are moved; no group begins inside, so its scale is of columns as they are."""
    if size < _BLOCK:
        return _BLOCK // size * size
    return size if size <= 4 * _BLOCK else next(part for part in range(_BLOCK, 0, -1) if size % part == 0)


def _nearest(values: Tensor, scale: Tensor, lowest: Tensor, highest: Tensor) -> Tensor:
    """Codes of `[R, C]` by scales and limits `[R, G]`, float32."""
    groups = values.unflatten(-1, (scale.shape[-1], -1))
    codes = torch.round(groups / scale.float().unsqueeze(-1))
    return torch.minimum(torch.maximum(codes, lowest.unsqueeze(-1)), highest.unsqueeze(-1)).flatten(-2)


def _group_scale(inside: Tensor, work: Tensor, plain: QuantizedTensor, quantizer: Quantizer, group: int) -> Tensor:
    """Scale `[R]` of a group `[R, size]` of the columns as they are now, `[C, R]`."""
    again = quantizer.quantize(inside) if plain.qmax.ndim == 1 else None
    if again is not None and again.scale.shape[-1] == 1 and torch.equal(again.qmax, plain.qmax):
        return again.scale[:, 0]
    again = quantizer.quantize(work.T.contiguous())
    if not torch.equal(again.qmax, plain.qmax):
        raise PlanError(
            f"'{quantizer.params.name}': which codes are wide depends on the weights themselves; calibrated rounding "
            "needs widths that stay"
        )
    return again.scale[:, group]


def _inverse_factor(moments: Tensor) -> Tensor:
    """Upper Cholesky factor of the inverse of moments that can be inverted, float32."""
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(moments))
    return torch.linalg.cholesky(inverse, upper=True).float()
