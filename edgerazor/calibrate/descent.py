"""Codes chosen once more, one after another: coordinate descent from the codes that GPTQ leaves.

GPTQ decides a column before it knows what those after it become. Here every code is chosen with all the others as they
are, the one for which the error of the outputs, tr((Q - W) H (Q - W)ᵀ) with H the second moments of the inputs, is
smallest, and every scale likewise by least squares; so the error falls with every step. Behdin et al. 2023,
arXiv:2309.01885, do so with codes. At the end ternary groups with fewer zeros than their quantizer leaves get some.
"""

import torch
from torch import Tensor

from edgerazor.core.contracts import Quantizer
from edgerazor.core.latent_weights import limits, most_nonzero
from edgerazor.core.tensor import QuantizedTensor
from edgerazor.kernels.reference import SMALLEST_SCALE, round_signed_scale

PASSES = 3
_BLOCK = 64


def descended(
    weight: Tensor, moments: Tensor, found: QuantizedTensor, quantizer: Quantizer, kept: Tensor, passes: int = PASSES
) -> QuantizedTensor:
    """Codes and scales whose outputs are no further from those of the weight than the given ones' are.

    Args:
        weight: float32 `[R, C]`.
        moments: float32 `[C, C]`, positive definite.
        found: codes and scales to begin at.
        quantizer: of the matrix; scales are rounded as it rounds them.
        kept: int64 `[R, G]`, the place in each group of a code that stays, so that the quantizer can give what is
            found to some weights; -1 where the whole group stays.
        passes: over all codes and scales.
    """
    if not passes:
        return found
    descent = _Descent(weight, moments, found, quantizer, kept)
    for _ in range(passes):
        for start in range(0, weight.shape[1], _BLOCK):
            descent.choose_codes(start, min(start + _BLOCK, weight.shape[1]))
        for group in range(found.scale.shape[1]):
            descent.choose_scale(group)
    descent.leave_zeros()
    codes, scale = descent.codes.T.contiguous().to(torch.int8), descent.scale.T.contiguous().to(found.scale.dtype)
    return QuantizedTensor(codes, scale, found.qmax, found.group_size)


class _Descent:
    """Where the descent is. Columns of the weight are rows here, so that one of them lies together in memory.

    Attributes:
        codes: float32 `[C, R]`.
        scale: float32 `[G, R]`.
        gradient: half of that of the error by the values, `[C, R]`.
    """

    def __init__(self, weight: Tensor, moments: Tensor, found: QuantizedTensor, quantizer: Quantizer, kept: Tensor):
        self.codes, self.scale = found.codes.T.float().contiguous(), found.scale.T.float().contiguous()
        self.gradient = moments @ (found.dequantize(torch.float32) - weight).T
        self._moments, self._diagonal, self._size = moments, moments.diagonal().tolist(), found.group_size
        self._whole_group_stays = (kept < 0).T
        places = torch.arange(len(moments)).unsqueeze(1) % self._size
        wide = kept.T.repeat_interleave(self._size, dim=0)
        stays = (wide == places) | (wide < 0)
        self._lowest, self._highest = (
            torch.where(stays, self.codes, bound.T.repeat_interleave(self._size, dim=0))
            for bound in limits(found.qmax, found.scale.shape[-1], quantizer)
        )
        self._scale_dtype = getattr(quantizer.params, "scale_dtype", "float16")
        self._stays, self._most = stays, most_nonzero(quantizer, self._size)
        self._ternary = (found.qmax.reshape(len(found.qmax), -1) == 1).expand_as(found.scale).T

    def choose_codes(self, start: int, end: int) -> None:
        """Of some columns, one after another."""
        inside = self.gradient[start:end].clone()
        moved = torch.zeros_like(inside)
        for column in range(start, end):
            place, step, code = column - start, self.scale[column // self._size], self.codes[column]
            best = torch.addcdiv(code, inside[place], step, value=-1 / self._diagonal[column]).round_()
            torch.maximum(best, self._lowest[column], out=best)
            torch.minimum(best, self._highest[column], out=best)
            torch.mul(best - code, step, out=moved[place])
            self.codes[column] = best
            inside[place + 1 :].addr_(self._moments[column, column + 1 : end], moved[place])
        self.gradient.addmm_(self._moments[:, start:end], moved)

    def choose_scale(self, group: int) -> None:
        """Of one group in all rows."""
        inside = slice(group * self._size, (group + 1) * self._size)
        codes, now = self.codes[inside], self.scale[group]
        slope = (codes * self.gradient[inside]).sum(dim=0)
        curvature = (codes * (self._moments[inside, inside] @ codes)).sum(dim=0)
        wanted = now - slope / curvature.clamp_min(torch.finfo(torch.float32).tiny)
        smallest = now.abs().clamp_max(SMALLEST_SCALE)
        kept_sign = torch.copysign(torch.maximum(wanted * now.sign(), smallest), now)
        new = round_signed_scale(kept_sign, self._scale_dtype)
        closer = (new - wanted).abs() < (now - wanted).abs()
        new = torch.where(closer & (curvature > 0) & ~self._whole_group_stays[group], new, now)
        self.gradient.addmm_(self._moments[:, inside], (new - now) * codes)
        self.scale[group] = new

    def leave_zeros(self) -> None:
        """Where a ternary group has more codes but 0 than its quantizer gives, those become 0 that cost least."""
        free = self._ternary & ~self._whole_group_stays
        for group in free.any(dim=1).nonzero().flatten().tolist():
            inside = slice(group * self._size, (group + 1) * self._size)
            diagonal = self._moments.diagonal()[inside].unsqueeze(1)
            codes = self.codes[inside]
            while bool((over := free[group] & ((codes != 0).sum(dim=0) > self._most)).any()):
                values = codes * self.scale[group]
                cost = diagonal * values.square() - 2 * values * self.gradient[inside]
                cheapest = cost.masked_fill((codes == 0) | self._stays[inside], torch.inf).argmin(dim=0)
                taken = torch.zeros_like(codes).scatter_(0, cheapest.unsqueeze(0), 1.0) * over
                self.gradient.addmm_(self._moments[:, inside], taken * values, alpha=-1)
                codes.mul_(1 - taken)
