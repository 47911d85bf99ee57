"""The gradient of scales that are given, from that of the values (LSQ: Esser et al. 2019, arXiv:1902.08153).

A value changes with its scale by `code - x / scale`, or by its code where it is clamped.
"""

import math

import torch
from torch import Tensor

from edgerazor.kernels.reference import GroupRule, clamp, code_range

# A tile and what is made of it stay in the processor's cache. Several threads meet after each operation, which takes
# longer than memory: they get larger tiles, and fewer of them.
_TILE = 2**16
_TILE_OF_A_THREAD = 2**17
# Less than any difference between a bound and a number beyond it.
_NOTHING = torch.finfo(torch.float32).tiny


def scale_gradient(x: Tensor, gradient: Tensor, rule: GroupRule, group_size: int | None) -> Tensor:
    """Gradient float32 `[..., G]` of the scales that `rule` gives.

    Args:
        x: `[..., C]`, any float dtype: what was rounded.
        gradient: of its values, in the shape of `x`.
        rule: `given` or `given_asymmetric`.
        group_size: columns that share a scale; None is one group per row.
    """
    assert rule.given is not None
    size = x.shape[-1] if group_size is None else group_size
    scale, qmax = rule.given.reshape(-1, 1).float(), rule.qmax
    if isinstance(qmax, Tensor):
        qmax = qmax.float().reshape(x.shape[:-1].numel(), -1).expand(-1, x.shape[-1] // size).reshape(-1, 1)
    groups, of_values = x.reshape(-1, size), gradient.reshape(-1, size)
    eager = x.device.type == "cpu" and not torch.compiler.is_compiling()
    of_scale = (_in_tiles if eager else _at_once)(groups, of_values, scale, *code_range(rule, qmax))
    return of_scale.reshape(*x.shape[:-1], -1)


def _at_once(groups: Tensor, of_values: Tensor, scale: Tensor, lowest: Tensor | int, highest: Tensor | int) -> Tensor:
    """The definition, of groups `[N, g]` and scales `[N, 1]`; bounds are numbers or `[N, 1]`."""
    steps = groups.float() / scale
    clamped = clamp(steps, lowest, highest, out=torch.empty_like(steps))
    slope = torch.where(steps == clamped, clamped.round() - steps, clamped)
    return (of_values.float() * slope).sum(dim=-1)


def _in_tiles(groups: Tensor, of_values: Tensor, scale: Tensor, lowest: Tensor | int, highest: Tensor | int) -> Tensor:
    """As `_at_once`, in a third of the time: in a few buffers, without comparisons, which torch does one by one."""
    threads = torch.get_num_threads()
    tile = _TILE if threads == 1 else threads * _TILE_OF_A_THREAD
    rows = max(1, min(tile // groups.shape[1], len(groups)))
    buffers = torch.empty(3, rows, groups.shape[1])
    result = torch.empty(len(groups))
    by_group = isinstance(lowest, Tensor) and isinstance(highest, Tensor)
    beyond = (0.0, 0.0) if by_group else (_next(lowest, -math.inf), _next(highest, math.inf))
    for start in range(0, len(groups), rows):
        part = slice(start, start + rows)
        x = groups[part].float()
        steps, inside, other = buffers[:, : len(x)]
        torch.div(x, scale[part], out=steps)
        if isinstance(lowest, Tensor) and isinstance(highest, Tensor):
            slope = clamp(steps, lowest[part], highest[part], out=other)
            _between(-_NOTHING, _NOTHING, torch.sub(steps, slope, out=inside), steps, out=inside)
        else:
            _between(*beyond, steps, steps, out=inside)
            slope = clamp(steps, lowest, highest, out=steps)
        slope.round_().sub_(inside).mul_(of_values[part])
        torch.sum(slope, dim=-1, out=result[part])
    return result


def _between(lowest: float, highest: float, x: Tensor, value: Tensor, *, out: Tensor) -> None:
    """`value` where `x` lies between two bounds, else 0; NaN where `x` is: what the gradient of hardtanh is."""
    torch.ops.aten.hardtanh_backward.grad_input(value, x, lowest, highest, grad_input=out)


def _next(bound: Tensor | int, towards: float) -> float:
    """The float32 number after a bound."""
    return float(torch.nextafter(torch.tensor(float(bound)), torch.tensor(towards)))
