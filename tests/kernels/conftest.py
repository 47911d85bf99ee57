"""Where the Triton kernels run: compiled on a CUDA device if there is one, else in triton's interpreter."""

import os

import pytest

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"


@pytest.fixture(params=["cpu"] if INTERPRETED else [pytest.param("cuda", marks=pytest.mark.gpu)])
def device(request: pytest.FixtureRequest) -> str:
    """The device whose tensors this process can run Triton kernels on."""
    return str(request.param)
