"""Which arithmetic the quickstart takes."""

import pytest
import torch
from torch import nn

from edgerazor.kernels.processor import SETTING
from edgerazor.quickstart.precision import bf16_is_faster


@pytest.mark.parametrize("processor", ["none", "vnni"])
def test_a_processor_without_bfloat16_takes_float32_unmeasured(processor: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(SETTING, processor)
    assert not bf16_is_faster(nn.Identity(), torch.device("cpu"))
