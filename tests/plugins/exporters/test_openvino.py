"""GGUF files of Q4_0 and Q8_0 in OpenVINO GenAI: logits and greedy tokens are those of Transformers.

It lives in an environment of its own, which scripts/openvino_check.sh makes; OPENVINO_PYTHON is its interpreter.
"""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gguf_cases import BODIES, WIDE, byte_level_tokenizer, pack_case, rules

pytest.importorskip("gguf")

from edgerazor.checkpoint import load_model
from edgerazor.core.registry import Registry
from edgerazor.export.export import export_to

ROOT = Path(__file__).parents[3]
PYTHON = os.environ.get("OPENVINO_PYTHON")
PROMPT = [(37 * position) % 250 + 3 for position in range(24)]
NEW = 16
LLAMA = {"family": "llama", **WIDE, "num_key_value_heads": 2, "head_dim": 64}
QWEN2 = {"family": "qwen2", **WIDE, "num_key_value_heads": 2, "tokenizer": byte_level_tokenizer(qwen=True)}
QWEN3 = {"family": "qwen3", "tokenizer": byte_level_tokenizer(qwen=True)}
# name: (case, settings of the export, block types in the file besides F32)
CASES: dict[str, tuple[dict[str, Any], list[str], set[str]]] = {
    "llama, 4 bit": ({**LLAMA, "weights": rules(BODIES["4"], 32), "tie_word_embeddings": False}, [], {"Q4_0"}),
    "llama, signed scales": ({**LLAMA, "weights": rules(BODIES["signed"], 32)}, [], {"Q4_0"}),
    "llama, 8 bit": ({**LLAMA, "weights": rules(BODIES["8"], 32)}, [], {"Q4_0", "Q8_0"}),
    "qwen2, 4 bit": ({**QWEN2, "weights": rules(BODIES["4"], 256)}, [], {"Q4_0"}),
    "qwen2, 8 bit": ({**QWEN2, "weights": rules(BODIES["8"], 64)}, [], {"Q4_0", "Q8_0"}),
    "qwen3, 2.79 bit": ({**QWEN3, "weights": rules(BODIES["2.79"], 64)}, [], {"Q4_0"}),
    "qwen3, 8 bit": (
        {**QWEN3, "weights": rules(BODIES["8"], 32), "tie_word_embeddings": False},
        [],
        {"Q4_0", "Q8_0"},
    ),
    "qwen3, 1.58 bit": (
        {**QWEN3, "weights": rules(BODIES["1.58"], 256)},
        ["types=[{match: '*', type: Q4_0}]"],
        {"Q4_0"},
    ),
}
pytestmark = [
    pytest.mark.openvino,
    pytest.mark.slow,
    pytest.mark.subprocess,
    pytest.mark.skipif(not PYTHON, reason="scripts/openvino_check.sh makes an environment with OpenVINO"),
]


def written_by_openvino(path: Path) -> dict[str, Any]:
    command = [
        str(PYTHON),
        str(ROOT / "scripts/openvino_run.py"),
        str(path),
        json.dumps({"prompt": PROMPT, "new": NEW}),
    ]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment, timeout=600)
    assert done.returncode == 0, done.stderr[-4000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("case", CASES)
def test_openvino_writes_what_transformers_writes(case: str, registry: Registry, tmp_path: Path) -> None:
    values, settings, types = CASES[case]
    folder, path = pack_case(tmp_path, registry, **values), tmp_path / "model.gguf"
    result = export_to(folder, "gguf", path, settings, registry=registry)
    assert set(result.details["types"]) - {"F32"} == types
    model = load_model(folder, dtype=torch.float32, dequantize=True)
    ids = torch.tensor([PROMPT])
    with torch.no_grad():
        expected = model(input_ids=ids).logits[0].numpy()
    tokens = model.generate(ids, max_new_tokens=NEW, do_sample=False, eos_token_id=-1, pad_token_id=0)[0, len(PROMPT) :]
    found = written_by_openvino(path)
    difference = np.linalg.norm(np.load(tmp_path / "logits.npy") - expected) / np.linalg.norm(expected)
    speed = f"{found['tokens_per_second']:.0f} tokens per second"
    print(f"\nOpenVINO {found['version']}, {case}: logits differ by {difference:.1e}, {speed}")
    assert found["tokens"] == tokens.tolist()
    assert difference < 1e-5
