"""What a processor can do: told by torch, or by the setting that stands in for the machine."""

import subprocess
import sys

import pytest
import torch

from edgerazor.errors import EdgeRazorError
from edgerazor.kernels.processor import SETTING, Processor, this_processor
from tests.processors import PROCESSORS, name


def test_without_a_setting_it_is_what_torch_tells(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(SETTING, raising=False)
    found = this_processor()
    if not hasattr(torch.cpu, "get_capabilities"):
        assert found == Processor(bfloat16=True, float16=True)
        return
    capabilities = torch.cpu.get_capabilities()
    if capabilities["architecture"] != "x86_64":
        pytest.skip("names of another architecture")
    assert found.bfloat16 == bool(capabilities["avx512_bf16"] or capabilities["amx_bf16"])
    assert found.vnni <= bool(capabilities["avx512_vnni"] or capabilities["avx_vnni"] or capabilities["amx_int8"])


def test_without_onednn_products_of_codes_would_be_slow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(SETTING, raising=False)
    with torch.backends.mkldnn.flags(enabled=False):
        assert not this_processor().vnni


@pytest.mark.parametrize("processor", PROCESSORS, ids=name)
def test_a_setting_stands_in_for_the_machine(processor: Processor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(SETTING, name(processor))
    assert this_processor() == processor


def test_names_may_stand_in_any_order() -> None:
    assert Processor.named("bfloat16+vnni") == Processor.named("vnni+bfloat16") == Processor(vnni=True, bfloat16=True)


@pytest.mark.parametrize("value", ["", "avx512", "vnni,bfloat16", "vnni+", "none+vnni", "VNNI"])
def test_any_other_value_is_refused_with_those_that_exist(value: str) -> None:
    with pytest.raises(EdgeRazorError) as error:
        Processor.named(value)
    message = str(error.value)
    assert message.startswith(f"{SETTING}={value}: '") and "none, or some of vnni, bfloat16" in message


@pytest.mark.subprocess
def test_a_wrong_value_is_refused_when_a_layer_is_made() -> None:
    code = (
        "from torch import nn; from edgerazor.core.layers.linear import make_linear; "
        "make_linear(nn.Linear(2, 2), None, None)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env={SETTING: "fast"}, capture_output=True, text=True, check=False
    )
    assert done.returncode and f"EdgeRazorError: {SETTING}=fast: 'fast' is nothing that" in done.stderr
