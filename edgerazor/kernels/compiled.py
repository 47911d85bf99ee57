"""The reference, compiled by torch.compile for CPUs: one pass over memory instead of six, the same bits.

Only the first use of a rule, group size and dtype compiles, which takes seconds and a C++ compiler. float16 scales need
`emulate_precision_casts`: without it the compiler would leave their rounding out.
"""

import warnings
from collections.abc import Callable
from functools import cache
from typing import Any

import torch
import torch._dynamo
from torch import Tensor

from edgerazor.errors import EdgeRazorError, first_line
from edgerazor.kernels import reference
from edgerazor.kernels.reference import GroupRule
from edgerazor.kernels.scale_gradient import scale_gradient as by_definition

FEWEST_GROUPS = 512


def quantize(x: Tensor, rule: GroupRule, group_size: int | None) -> tuple[Tensor, Tensor]:
    """Codes and scales, the bits of `reference.quantize`."""
    codes, scale = _run(reference.quantize, x, rule, group_size)
    return codes.reshape(x.shape), scale.reshape(*x.shape[:-1], -1)


def fake_quantize(x: Tensor, rule: GroupRule, group_size: int | None, *, dtype: torch.dtype | None = None) -> Tensor:
    """Values after quantization, the bits of `reference.fake_quantize`."""
    value = _run(reference.fake_quantize, x, rule, group_size, dtype=dtype or x.dtype)
    return value.reshape(x.shape)  # type: ignore[no-any-return]


def quantize_dequantize(
    x: Tensor, rule: GroupRule, group_size: int | None, *, dtype: torch.dtype | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Codes, scales and values, the bits of `reference.quantize_dequantize`."""
    codes, scale, value = _run(reference.quantize_dequantize, x, rule, group_size, dtype=dtype or x.dtype)
    return codes.reshape(x.shape), scale.reshape(*x.shape[:-1], -1), value.reshape(x.shape)


def scale_gradient(x: Tensor, gradient: Tensor, rule: GroupRule, group_size: int | None) -> Tensor:
    """Gradient of given scales, to float32's rounding that of `kernels.scale_gradient`."""
    of_values = gradient.reshape(-1, x.shape[-1] if group_size is None else group_size)
    return _run(by_definition, x, rule, group_size, of_values).reshape(*x.shape[:-1], -1)  # type: ignore[no-any-return]


def _run(
    function: Callable[..., Any], x: Tensor, rule: GroupRule, group_size: int | None, *others: Tensor, **options: Any
) -> Any:
    """A function of the reference, of the groups as rows: matrices of all widths share the machine code.

    Args:
        others: more groups that it takes.
    """
    size = x.shape[-1] if group_size is None else group_size
    groups = x.detach().reshape(-1, size)
    of_rule = _tensors(rule, x.shape[:-1].numel(), x.shape[-1] // size)
    if len(groups) < FEWEST_GROUPS:
        return function(groups, *others, rule._replace(**of_rule), None, **options)
    without: dict[str, Any] = dict.fromkeys(of_rule)
    key = rule._replace(**without)
    code = _of_groups(function, key, size, tuple(of_rule), **options)
    return run_compiled(code, *of_rule.values(), groups, *others)


def _tensors(rule: GroupRule, rows: int, per_row: int) -> dict[str, Any]:
    """What a rule says of each group, one entry per group; the rest is the same for all."""
    found = {name: value for name, value in rule._asdict().items() if isinstance(value, Tensor)}
    return {name: value.reshape(rows, -1).expand(-1, per_row).flatten().contiguous() for name, value in found.items()}


@cache
def _of_groups(
    function: Callable[..., Any], rule: GroupRule, size: int, names: tuple[str, ...], **options: Any
) -> Callable[..., Any]:
    """A function for one rule, result and group size; what differs besides is the dtype of the groups."""

    def of_groups(*tensors: Tensor) -> Any:
        of_rule: dict[str, Any] = dict(zip(names, tensors, strict=False))
        return function(*tensors[len(names) :], rule._replace(**of_rule), None, **options)

    return of_groups


def run_compiled(function: Callable[..., Any], *tensors: Tensor) -> Any:
    """The result of a function whose tensors share their first size, compiled once for any such size.

    Raises:
        EdgeRazorError: there is no C++ compiler.
    """
    for tensor in tensors:
        torch._dynamo.mark_dynamic(tensor, 0)  # type: ignore[no-untyped-call]
    try:
        with torch.no_grad():
            return _compiled(function)(*tensors)
    except Exception as error:
        raise EdgeRazorError(
            f"EDGERAZOR_KERNELS=compiled: torch.compile failed ({first_line(error)}); it needs a C++ compiler. "
            "Unset the variable to run without it"
        ) from error


class _Compiled:
    """A function behind torch.compile; what the compiler warns of while it works is not shown."""

    def __init__(self, function: Callable[..., Any]):
        options: Any = {"options": {"emulate_precision_casts": True}, "isolate_recompiles": True}
        self._function = torch.compile(function, dynamic=False, fullgraph=True, **options)
        self._known: set[tuple[Any, ...]] = set()

    def __call__(self, *tensors: Tensor) -> Any:
        signature = tuple((tensor.dtype, tensor.shape[1:]) for tensor in tensors)
        if signature in self._known:
            return self._function(*tensors)
        with warnings.catch_warnings():
            # The compiler says that scales are float16 among bfloat16 values, as they should be.
            warnings.filterwarnings("ignore", message="bf16 and fp16 are mixed", category=UserWarning)
            result = self._function(*tensors)
        self._known.add(signature)
        return result


_compiled = cache(_Compiled)
