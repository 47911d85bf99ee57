"""Quantizers against the original release: what must agree, must differ, must be refused (METHOD 10 and 11)."""

from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from edgerazor.errors import PlanError
from tests.golden_cases import REGISTRY, cases, difference, params, tensors


def quantizer_of(case: dict[str, Any]) -> Any:
    return REGISTRY.build(params("quantizer", {**case["ours"], "scale_dtype": "float32"}))


def input_of(case: dict[str, Any]) -> Tensor:
    x = tensors("quantizers")[case["input"]]
    return x.reshape(case.get("view", x.shape))


@cases("quantizers", "same")
def test_values_agree(case: dict[str, Any]) -> None:
    x, expected = input_of(case), tensors("quantizers")[case["output"]]
    value = quantizer_of(case).quantize(x).dequantize(torch.float32)
    assert difference(value, expected.reshape(x.shape)) <= 1e-6


@cases("quantizers", "different")
def test_values_differ_where_the_original_is_at_fault(case: dict[str, Any]) -> None:
    x = input_of(case)
    value = quantizer_of(case).quantize(x).dequantize(torch.float32)
    assert bool(torch.isfinite(value).all())
    if "output" in case and "by chance" not in case["reason"]:
        assert difference(value, tensors("quantizers")[case["output"]].reshape(x.shape)) > 1e-6


@cases("quantizers", "refused")
def test_what_cannot_be_done_is_refused(case: dict[str, Any]) -> None:
    with pytest.raises((ValidationError, PlanError)):
        quantizer_of(case).check_shape(tuple(input_of(case).shape))


@cases("mixed_precision_masks", "same")
def test_high_groups_agree(case: dict[str, Any]) -> None:
    x, expected = input_of(case), tensors("mixed_precision_masks")[case["mask"]]
    qmax = quantizer_of(case).quantize(x).qmax
    per_group = qmax if qmax.ndim == 2 else qmax.unsqueeze(-1).expand(-1, case["shape"][1] // case["block_size"])
    assert torch.equal((per_group > 1).flatten(), expected.flatten().bool())


@cases("mixed_precision_masks", "refused")
def test_ratios_that_give_another_share_are_refused(case: dict[str, Any]) -> None:
    with pytest.raises((ValidationError, PlanError)):
        quantizer_of(case).check_shape(tuple(case["shape"]))
