"""Exported folders in vLLM: greedy tokens and log-probabilities of a prompt are those of Transformers.

vLLM lives in an environment of its own, which scripts/vllm_check.sh makes; VLLM_PYTHON is its interpreter.
"""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gguf_cases import BODIES, pack_case, rules

pytest.importorskip("compressed_tensors")

from edgerazor.core.registry import Registry
from edgerazor.export.export import export_to
from edgerazor.inference.open_runtime import open_runtime

ROOT = Path(__file__).parents[3]
PYTHON = os.environ.get("VLLM_PYTHON")
PROMPT = [(37 * position) % 301 + 3 for position in range(24)]
NEW = 16
CASES: dict[str, dict[str, Any]] = {
    "qwen3, 1.88 bit, groups of 256": {"weights": rules(BODIES["1.88"], 256)},
    "llama, 4 bit, groups of 32, untied": {
        "family": "llama",
        "weights": rules(BODIES["4"], 32),
        "tie_word_embeddings": False,
        "attention_bias": True,
    },
    "qwen3, ternary MLP, the rest in 16 bits": {
        "weights": [{"match": "*.mlp.*", "quantizer": {"name": "ternary", "group_size": 64}}],
    },
    "llama, ternary, one scale a row": {
        "family": "llama",
        "weights": [{"match": "*", "quantizer": {"name": "ternary"}}],
    },
}
pytestmark = [
    pytest.mark.vllm,
    pytest.mark.slow,
    pytest.mark.subprocess,
    pytest.mark.skipif(not PYTHON, reason="scripts/vllm_check.sh makes an environment with vLLM"),
]


def written_by_vllm(folder: Path) -> dict[str, Any]:
    command = [str(PYTHON), str(ROOT / "scripts/vllm_run.py"), str(folder), json.dumps({"prompt": PROMPT, "new": NEW})]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment, timeout=600)
    assert done.returncode == 0, done.stderr[-4000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("case", CASES)
def test_vllm_writes_what_transformers_writes(case: str, registry: Registry, tmp_path: Path) -> None:
    folder = pack_case(tmp_path, registry, **CASES[case])
    export_to(folder, "compressed-tensors", tmp_path / "out", registry=registry)
    runtime = open_runtime(tmp_path / "out", registry=registry)
    logits = runtime.feed(PROMPT, every=True)
    logarithms = logits - np.logaddexp.reduce(logits, axis=-1, keepdims=True)
    expected = logarithms[range(len(PROMPT) - 1), PROMPT[1:]]
    tokens = [int(logits[-1].argmax())]
    while len(tokens) < NEW:
        tokens.append(int(runtime.feed([tokens[-1]])[0].argmax()))
    found = written_by_vllm(tmp_path / "out")
    difference = float(np.abs(np.array(found["log_probabilities"]) - expected).max())
    product = "vLLM's product" if found["own_product"] else "torch's product"
    print(
        f"\nvLLM {found['version']}, {case}, {product}: log-probabilities differ by at most {difference:.4f}, "
        f"{found['tokens_per_second']:.0f} tokens per second"
    )
    assert found["tokens"] == tokens
    assert difference < 0.02
