"""llama.cpp's logits on real text against the student whose activations are rounded as llama.cpp rounds them.

Rounding to int8 is discontinuous: two sums that differ in the last bit now and then round to different codes, and from
there on differ by as much as the rounding itself. So short contexts agree to the last bits, long ones to the noise of
8-bit activations.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ggml_rounding import student_as_rounded_by_ggml
from gguf_cases import BODIES, make, rules
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional
from transformers import AutoTokenizer

from edgerazor import quickstart
from edgerazor.checkpoint import open_checkpoint, pack_model
from edgerazor.core.registry import Registry
from edgerazor.schemas.recipe import load_recipe

pytest.importorskip("llama_cpp")
pytestmark = pytest.mark.llamacpp

from edgerazor.plugins.exporters.gguf.runtime import LlamaCppRuntime  # noqa: E402

TEACHER = Path(quickstart.__path__[0]) / "teacher"
SOURCE = Path(torch.__file__).parent / "nn" / "functional.py"
CASES = [(bits, profile) for bits in ("4", "2.79", "1.58") for profile in ("size", "speed_cpu")]


@pytest.fixture(scope="module")
def folders(registry: Registry, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The quickstart's teacher, rounded."""
    made = {}
    for bits in ("4", "2.79", "1.58"):
        made[bits] = tmp_path_factory.mktemp("student") / "packed"
        section = {"weights": rules(BODIES[bits], 256)}
        recipe = load_recipe({"model": {"name_or_path": str(TEACHER)}, "quantization": section}, registry=registry)
        pack_model(recipe, registry=registry, output=made[bits])
    return made


@pytest.mark.parametrize(("bits", "profile"), CASES)
def test_logits_on_1024_real_tokens(
    bits: str, profile: str, folders: dict[str, Path], registry: Registry, tmp_path: Path
) -> None:
    path, folder = tmp_path / "a.gguf", folders[bits]
    make(registry, path, profile=profile).export(open_checkpoint(folder), path)
    tokens = AutoTokenizer.from_pretrained(folder)(SOURCE.read_text()[:6000])["input_ids"][:1024]
    assert len(tokens) == 1024
    student = student_as_rounded_by_ggml(folder, path)
    runtime = LlamaCppRuntime(path, context_length=1024, threads=1, cache_type="F32")
    try:
        top1, divergence = _compare(student, runtime, tokens, window=4)
        assert top1 >= 0.99 and divergence <= 5e-4
        top1, divergence = _compare(student, runtime, tokens, window=1024)
        assert top1 >= 0.95 and divergence <= 2e-3
    finally:
        runtime.close()


def _compare(student: Any, runtime: LlamaCppRuntime, tokens: list[int], *, window: int) -> tuple[float, float]:
    """Top-1 agreement and mean KL; the context is forgotten after each window."""
    ours, theirs = list[Tensor](), list[NDArray[np.float32]]()
    for start in range(0, len(tokens), window):
        piece = tokens[start : start + window]
        with torch.no_grad():
            ours.append(student(input_ids=torch.tensor([piece])).logits[0].double())
        runtime.restart()
        theirs.append(runtime.feed(piece, every=True))
    expected, found = torch.cat(ours), torch.from_numpy(np.concatenate(theirs)).double()
    divergence = functional.kl_div(
        found.log_softmax(-1), expected.log_softmax(-1), reduction="batchmean", log_target=True
    )
    return float((expected.argmax(-1) == found.argmax(-1)).double().mean()), float(divergence)
