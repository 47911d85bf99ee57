"""Triton on CUDA tensors, the reference elsewhere, unless the environment says otherwise; the results do not tell."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor

from edgerazor.core.learned_scales import LearnedScales
from edgerazor.errors import EdgeRazorError
from edgerazor.kernels import dispatch
from edgerazor.kernels.divergence import RowWeights
from edgerazor.kernels.fused_linear import TeacherLogits, fused_linear_distillation, teacher_statistics
from edgerazor.kernels.projection import Projection
from edgerazor.plugins.quantizers.integer import IntQuantizer
from edgerazor.plugins.quantizers.params import IntParams, SQMPParams, TernaryParams
from edgerazor.plugins.quantizers.sqmp import SQMPQuantizer
from edgerazor.plugins.quantizers.ternary import TernaryQuantizer

pytestmark = pytest.mark.filterwarnings("ignore:(invalid value|overflow) encountered:RuntimeWarning")
QUANTIZERS = {
    "ternary": TernaryQuantizer(TernaryParams(group_size=32)),
    "ternary absmax": TernaryQuantizer(TernaryParams(group_size=None, scale="absmax")),
    "int4": IntQuantizer(IntParams(bits=4, group_size=32)),
    "int4 asymmetric": IntQuantizer(IntParams(bits=4, group_size=32, symmetric=False)),
    "int2 signed": IntQuantizer(IntParams(bits=2, group_size=32, symmetric=False, scale="signed_absmax")),
    "int8 activations": IntQuantizer(IntParams(bits=8, group_size=32, scale_dtype="float32")),
    "sqmp": SQMPQuantizer(SQMPParams(high_ratio=0.125, group_size=32)),
    "sqmp by group": SQMPQuantizer(SQMPParams(high_ratio="1/3", group_size=32, placement="first_groups")),
    "sqmp by variance": SQMPQuantizer(SQMPParams(high_ratio="1/3", group_size=32, placement="variance_groups")),
}


@contextmanager
def launches(kernel: Any) -> Iterator[list[int]]:
    """One entry for each launch of a Triton kernel inside the block."""
    found: list[int] = []

    def count(*_: Any, **__: Any) -> None:
        found.append(1)

    kernel.add_pre_run_hook(count)
    try:
        yield found
    finally:
        kernel.pre_run_hooks.remove(count)


def test_the_reference_serves_cpu_tensors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(dispatch.SETTING, raising=False)
    assert not dispatch.chooses_triton(torch.zeros(1))


def test_an_unknown_setting_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(dispatch.SETTING, "tritn")
    with pytest.raises(EdgeRazorError, match="EDGERAZOR_KERNELS=tritn: expected auto, reference, triton or compiled"):
        QUANTIZERS["int4"].fake_quantize(torch.zeros(1, 32))


def test_triton_on_a_cpu_needs_the_interpreter(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("triton")
    monkeypatch.setenv(dispatch.SETTING, "triton")
    monkeypatch.setenv("TRITON_INTERPRET", "0")
    with pytest.raises(EdgeRazorError, match="set TRITON_INTERPRET=1"):
        QUANTIZERS["int4"].fake_quantize(torch.zeros(1, 32))


@pytest.mark.subprocess
def test_triton_that_is_not_installed_is_an_error() -> None:
    program = (
        "import sys; sys.modules['triton'] = None; import torch; from edgerazor.kernels import dispatch\n"
        "dispatch.chooses_triton(torch.zeros(1))"
    )
    environment = {"EDGERAZOR_KERNELS": "triton", "PYTHONPATH": ":".join(sys.path)}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=False)
    assert "triton is not installed: unset it, or run pip install '.[triton]' in the repository" in done.stderr


@pytest.mark.parametrize("quantizer", QUANTIZERS.values(), ids=QUANTIZERS)
def test_quantizers_give_the_same_bits(quantizer: Any, device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("triton")
    from edgerazor.kernels.triton.quantize import quantize_kernel

    x = torch.randn(9, 96, generator=torch.Generator().manual_seed(0)).to(device)

    def everything() -> list[Tensor]:
        alone, (tensor, value) = quantizer.quantize(x), quantizer.quantize_dequantize(x)
        parts = [part for projected in (alone, tensor) for part in (projected.codes, projected.scale, projected.qmax)]
        return [*parts, value, quantizer.fake_quantize(x)]

    monkeypatch.setenv(dispatch.SETTING, "reference")
    with launches(quantize_kernel) as none:
        expected = everything()
    monkeypatch.setenv(dispatch.SETTING, "triton")
    with launches(quantize_kernel) as three:
        found = everything()
    assert (len(none), len(three)) == (0, 3)
    assert all(torch.equal(tensor, other) for tensor, other in zip(found, expected, strict=True))


def test_scales_that_training_chose_have_kernels_of_their_own(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("triton")
    from edgerazor.kernels.triton.quantize import quantize_kernel
    from edgerazor.kernels.triton.scale_gradient import scale_gradient_kernel

    weight, gradient = torch.randn(2, 9, 96, generator=torch.Generator().manual_seed(0)).to(device)
    monkeypatch.setenv(dispatch.SETTING, "reference")
    scales = LearnedScales(QUANTIZERS["sqmp"], QUANTIZERS["sqmp"].quantize(0.9 * weight))
    scales.to(weight.device)

    def everything() -> list[Tensor]:
        scales.set_gradient(weight, gradient)
        assert scales.factors.grad is not None
        tensor, value = scales.quantize_dequantize(weight)
        return [tensor.codes, tensor.scale, value, scales.fake_quantize(weight), scales.factors.grad]

    *expected, of_factors = everything()
    monkeypatch.setenv(dispatch.SETTING, "triton")
    with launches(quantize_kernel) as two, launches(scale_gradient_kernel) as one:
        *found, of_these = everything()
    assert (len(two), len(one)) == (2, 1)
    assert all(torch.equal(tensor, other) for tensor, other in zip(found, expected, strict=True))
    torch.testing.assert_close(of_these, of_factors)


def test_float64_and_groups_too_long_stay_with_the_reference(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("triton")
    from edgerazor.kernels.triton.quantize import LARGEST_GROUP, quantize_kernel

    monkeypatch.setenv(dispatch.SETTING, "triton")
    quantizer = TernaryQuantizer(TernaryParams(group_size=None))
    with launches(quantize_kernel) as none:
        quantizer.fake_quantize(torch.randn(2, 32, dtype=torch.float64, device=device))
        quantizer.fake_quantize(torch.randn(1, LARGEST_GROUP + 1, device=device))
    assert not none


@pytest.mark.parametrize("teacher", [True, False], ids=["teacher", "task only"])
def test_the_fused_loss_is_the_same(teacher: bool, device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("triton")
    from edgerazor.kernels.triton.row_gradient import row_gradient_kernel
    from edgerazor.kernels.triton.teacher_statistics import teacher_statistics_kernel

    generator = torch.Generator().manual_seed(0)
    hidden, weight, other = (torch.randn(*size, generator=generator).to(device) for size in [(7, 8), (37, 8), (37, 8)])
    labels = torch.tensor([1, -100, 3, 36, 0, 5, 9], device=device)
    weights = RowWeights(*torch.rand(3, 7, generator=generator).to(device))

    def everything() -> list[Tensor]:
        parts = [hidden.clone().requires_grad_(True), weight.clone().requires_grad_(True)]
        held = TeacherLogits(Projection(hidden, other), 3)
        value, rows = fused_linear_distillation(
            Projection(*parts), held if teacher else None, labels, weights, temperature=2.0
        )
        return [value.detach(), *rows, *torch.autograd.grad(value, parts), *teacher_statistics(held, labels)]

    monkeypatch.setenv(dispatch.SETTING, "reference")
    with launches(row_gradient_kernel) as none:
        expected = everything()
    monkeypatch.setenv(dispatch.SETTING, "triton")
    with launches(row_gradient_kernel) as gradients, launches(teacher_statistics_kernel) as entropies:
        found = everything()
    assert (len(none), len(gradients), len(entropies)) == (0, 3 if teacher else 1, 3)
    for gradient, twin in zip(found, expected, strict=True):
        torch.testing.assert_close(gradient, twin, rtol=1e-5, atol=1e-5)
