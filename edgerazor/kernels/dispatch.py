"""Which implementation runs: Triton's kernels on CUDA tensors where triton is installed, the reference everywhere else.

The environment variable EDGERAZOR_KERNELS says otherwise: `reference` for every tensor; `triton` for every tensor, on a
CPU in its interpreter (TRITON_INTERPRET=1); `compiled`, by which torch.compile makes the quantizers of CPU tensors.
Codes, scales and values are the same bits whatever it says. Under `reference` products are those of values, too.
"""

import os
from functools import cache
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor

from edgerazor.errors import EdgeRazorError, install_hint
from edgerazor.kernels import cpu_products, divergence, reference, similarity
from edgerazor.kernels.divergence import RowStatistics, RowWeights
from edgerazor.kernels.few_rows import FewRows
from edgerazor.kernels.processor import Processor
from edgerazor.kernels.reference import GroupRule
from edgerazor.kernels.scale_gradient import scale_gradient as by_definition

SETTING = "EDGERAZOR_KERNELS"
# With shorter groups, products of codes are slower than those of values.
SHORTEST_CODED_GROUP = 256
_KERNEL_DTYPES = (torch.float32, torch.bfloat16, torch.float16)


def quantize(x: Tensor, rule: GroupRule, group_size: int | None) -> tuple[Tensor, Tensor]:
    """Codes int8 and scales of `x [..., C]` in groups of columns, as `reference.quantize` defines them."""
    return _grouped(x, group_size).quantize(x, rule, group_size)


def fake_quantize(x: Tensor, rule: GroupRule, group_size: int | None, *, dtype: torch.dtype | None = None) -> Tensor:
    """Values that `x [..., C]` has after quantization, as `reference.fake_quantize` defines them."""
    return _grouped(x, group_size).fake_quantize(x, rule, group_size, dtype=dtype)


def few_rows(rule: GroupRule, group_size: int | None) -> FewRows | None:
    """What fake-quantizes few numbers by this rule in fewer calls; None where nothing does, or a setting says how."""
    usual = rule.scale == "absmax" and SETTING not in os.environ
    return FewRows(rule, group_size) if usual else None


def quantize_dequantize(
    x: Tensor, rule: GroupRule, group_size: int | None, *, dtype: torch.dtype | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Codes, scales and values of `x` in one pass, as `reference.quantize_dequantize` defines them."""
    return _grouped(x, group_size).quantize_dequantize(x, rule, group_size, dtype=dtype)


def dequantize(codes: Tensor, scale: Tensor, dtype: torch.dtype) -> Tensor:
    """Values of codes in `dtype`, as `reference.dequantize` defines them."""
    if dtype not in _KERNEL_DTYPES or not chooses_triton(codes):
        return reference.dequantize(codes, scale, dtype)
    from edgerazor.kernels.triton import dequantize as kernel

    return kernel.dequantize(codes, scale, dtype)


def scale_gradient(x: Tensor, gradient: Tensor, rule: GroupRule, group_size: int | None) -> Tensor:
    """Gradient of given scales, as in `scale_gradient.scale_gradient`."""
    if _chooses_compiled(x):
        from edgerazor.kernels import compiled

        return compiled.scale_gradient(x, gradient, rule, group_size)
    if not _fits_triton(x, group_size):
        return by_definition(x, gradient, rule, group_size)
    from edgerazor.kernels.triton import scale_gradient as kernel

    return kernel.scale_gradient(x, gradient, rule, group_size)


def teacher_row_statistics(u: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Entropy and label log probability of rows of teacher logits, as in `divergence.teacher_row_statistics`."""
    if not _rows(u):
        return _rows_on_cpu(u).teacher_row_statistics(u, labels)  # type: ignore[no-any-return]
    from edgerazor.kernels.triton import teacher_statistics

    return teacher_statistics.teacher_row_statistics(u, labels)


def row_statistics(z: Tensor, u: Tensor | None, labels: Tensor, temperature: float = 1.0) -> RowStatistics:
    """Both divergences and the cross entropy of rows of logits, as in `divergence.row_statistics`."""
    if not _rows(z, u):
        return _rows_on_cpu(z, u).row_statistics(z, u, labels, temperature)  # type: ignore[no-any-return]
    from edgerazor.kernels.triton import row_statistics as kernel

    return kernel.row_statistics(z, u, labels, temperature)


def row_gradient(
    z: Tensor,
    u: Tensor | None,
    labels: Tensor,
    weights: RowWeights,
    temperature: float = 1.0,
    *,
    out: Tensor | None = None,
) -> tuple[Tensor, RowStatistics]:
    """Gradient and statistics of rows of logits, as in `divergence.row_gradient`; `out` may be `z` itself."""
    if not _rows(z, u):
        return _rows_on_cpu(z, u).row_gradient(z, u, labels, weights, temperature, out=out)  # type: ignore[no-any-return]
    from edgerazor.kernels.triton import row_gradient as kernel

    return kernel.row_gradient(z, u, labels, weights, temperature, out=out)


def row_cosine(a: Tensor, b: Tensor) -> Tensor:
    """Cosine similarity of rows, as in `similarity.row_cosine`."""
    if not _rows(a, b):
        return similarity.row_cosine(a, b)
    from edgerazor.kernels.triton import similarity as kernel

    return kernel.row_cosine(a, b)


def multiplies_codes(
    columns: int,
    group_sizes: tuple[int | None, ...],
    dtype: torch.dtype,
    device: torch.device,
    processor: Processor,
) -> bool:
    """Whether `cpu_products.integer_linear` can take the place of a product of values in `dtype`, is faster, and values
    are not asked for by the setting.

    Args:
        columns: that both matrices have.
        group_sizes: of each of them; None is one group per row.
    """
    # Against native half-precision products it has not been measured.
    replaceable = device.type == "cpu" and (dtype == torch.float32 or cpu_products.emulated(dtype, device, processor))
    if not replaceable or not processor.vnni or os.environ.get(SETTING) == "reference":
        return False
    sizes = [columns if size is None else size for size in group_sizes]
    return min(sizes) >= SHORTEST_CODED_GROUP and max(sizes) % min(sizes) == 0


def chooses_triton(x: Tensor) -> bool:
    """Whether the kernels of this tensor are Triton's.

    Raises:
        EdgeRazorError: the setting has no such value, or asks for Triton where it cannot run.
    """
    match os.environ.get(SETTING, "auto"):
        case "reference":
            return False
        case "auto" | "compiled":
            return x.is_cuda and _installed()
        case "triton":
            _check_triton_can_run(x)
            return True
        case value:
            raise EdgeRazorError(f"{SETTING}={value}: expected auto, reference, triton or compiled")


def _check_triton_can_run(x: Tensor) -> None:
    if not _installed():
        raise EdgeRazorError(f"{SETTING}=triton, but triton is not installed: unset it, or {install_hint('triton')}")
    if not x.is_cuda and os.environ.get("TRITON_INTERPRET") != "1":
        raise EdgeRazorError(
            f"{SETTING}=triton on a tensor of {x.device}: Triton compiles for CUDA devices; set TRITON_INTERPRET=1 to "
            "interpret its kernels, or unset both"
        )


@cache
def _installed() -> bool:
    return find_spec("triton") is not None


def _grouped(x: Tensor, group_size: int | None) -> Any:
    """The module whose functions quantize `x`: Triton's kernels, the compiled ones or the reference."""
    if _chooses_compiled(x):
        from edgerazor.kernels import compiled

        return compiled
    if not _fits_triton(x, group_size):
        return reference
    from edgerazor.kernels.triton import quantize as kernels

    return kernels


def _fits_triton(x: Tensor, group_size: int | None) -> bool:
    if x.dtype not in _KERNEL_DTYPES or not chooses_triton(x):
        return False
    from edgerazor.kernels.triton import quantize as kernels

    return (group_size or x.shape[-1]) <= kernels.LARGEST_GROUP


def _chooses_compiled(x: Tensor) -> bool:
    return x.dtype in _KERNEL_DTYPES and x.device.type == "cpu" and os.environ.get(SETTING) == "compiled"


def _rows_on_cpu(*logits: Tensor | None) -> Any:
    """The module whose functions compare these logits, where Triton does not."""
    if not all(_chooses_compiled(tensor) for tensor in logits if tensor is not None):
        return divergence
    from edgerazor.kernels import compiled_rows

    return compiled_rows


def _rows(*rows: Tensor | None) -> bool:
    """Whether Triton takes these rows: none is float64."""
    given = [tensor for tensor in rows if tensor is not None]
    return all(tensor.dtype in _KERNEL_DTYPES for tensor in given) and chooses_triton(given[0])
