"""The compiled quantizers give the bits of the reference."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

from edgerazor.kernels import dispatch, reference
from edgerazor.kernels.compiled import FEWEST_GROUPS
from edgerazor.kernels.reference import GroupRule
from edgerazor.kernels.scale_gradient import scale_gradient

ROWS, GROUP, COLUMNS = FEWEST_GROUPS, 32, 96
WIDTHS = torch.where(torch.arange(ROWS) % 8 == 0, 7, 1).to(torch.int8)
GIVEN = torch.linspace(0.1, 3, ROWS * COLUMNS // GROUP).half().reshape(ROWS, -1)
RULES = {
    "ternary": (GroupRule("absmean", 1), torch.float32),
    "inputs": (GroupRule("absmax", 127, scale_dtype="float32"), torch.bfloat16),
    "mixed": (GroupRule("mixed", WIDTHS), torch.float32),
    "scales of bfloat16": (GroupRule("absmean", 1, scale_dtype="float16_bfloat16"), torch.bfloat16),
    "signed": (GroupRule("signed_asymmetric", 7), torch.bfloat16),
    "given": (GroupRule("given_asymmetric", WIDTHS, given=GIVEN), torch.float32),
}
needs_compiler = pytest.mark.skipif(
    shutil.which(os.environ.get("CXX", "g++")) is None, reason="torch.compile needs a C++ compiler"
)


def weights(rows: int, columns: int, dtype: torch.dtype) -> Tensor:
    """Ties at half a scale, zeros, subnormals, something huge and something that is no number."""
    x = torch.randn(rows, columns, generator=torch.Generator().manual_seed(rows))
    x[0], x[1], x[2, 0], x[3, 0], x[4] = 0.0, 1e-41, 1e30, torch.nan, torch.arange(columns) / 2 - 8
    return x.to(dtype)


@needs_compiler
@pytest.mark.slow
@pytest.mark.subprocess  # torch tries once on every processor, in another Python, what its compiler can do there
@pytest.mark.parametrize("name", RULES)
def test_bits_are_those_of_the_reference(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(dispatch.SETTING, "compiled")
    rule, dtype = RULES[name]
    # Rows in one of the shapes are too few to compile; the others share their machine code.
    for x in (weights(ROWS, GROUP, dtype), weights(ROWS, COLUMNS, dtype), weights(8, GROUP, dtype)):
        fitting = rule._replace(qmax=rule.qmax[: len(x)]) if isinstance(rule.qmax, Tensor) else rule
        if rule.given is not None:
            fitting = fitting._replace(given=rule.given[: len(x), : x.shape[1] // GROUP])
        found = dispatch.quantize_dequantize(x, fitting, GROUP)
        expected = reference.quantize_dequantize(x, fitting, GROUP)
        for ours, theirs in zip(found, expected, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=0, atol=0, equal_nan=True)
        assert bool(found[2][3].isnan().any()) == (rule.given is None) and not bool(found[2][5:].isnan().any())
        value = dispatch.fake_quantize(x.reshape(2, -1, x.shape[-1]), fitting, GROUP)
        torch.testing.assert_close(value.reshape(x.shape), found[2], rtol=0, atol=0, equal_nan=True)
        if rule.given is not None:
            gradient = torch.randn(x.shape, generator=torch.Generator().manual_seed(0))
            ours = dispatch.scale_gradient(x, gradient, fitting, GROUP)
            theirs = scale_gradient(x, gradient, fitting, GROUP)
            torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-4, equal_nan=True)


@pytest.mark.subprocess
def test_without_a_compiler_the_error_says_so(tmp_path: Path) -> None:
    program = (
        "import torch; from edgerazor.kernels import dispatch; from edgerazor.kernels.reference import GroupRule\n"
        f"dispatch.fake_quantize(torch.ones({ROWS}, 32), GroupRule('absmax', 7), 32)"
    )
    settings = {dispatch.SETTING: "compiled", "CXX": "no-such-compiler", "TORCHINDUCTOR_CACHE_DIR": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", program], env={**os.environ, **settings}, capture_output=True, text=True, check=False
    )
    last = done.stderr.strip().splitlines()[-1]
    assert "EDGERAZOR_KERNELS=compiled: torch.compile failed" in last and "it needs a C++ compiler" in last
