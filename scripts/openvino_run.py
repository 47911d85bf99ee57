"""Write some tokens with OpenVINO GenAI: runs in an environment of its own, and imports nothing of this package.

    python scripts/openvino_run.py model.gguf '{"prompt": [1, 2, 3], "new": 16}'

prints one line of JSON: version, tokens, and tokens per second of a second, longer run; logits of the prompt go to
`logits.npy` beside the file, with the model that OpenVINO made of it.

Keys, values, inputs of products and everything else stay float32: by default OpenVINO rounds them to fewer bits.
"""

import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import openvino
import openvino_genai

EXACT = {"INFERENCE_PRECISION_HINT": "f32", "KV_CACHE_PRECISION": "f32", "DYNAMIC_QUANTIZATION_GROUP_SIZE": "0"}


def main(path: Path, request: dict[str, Any]) -> dict[str, Any]:
    """What is printed; `request` holds the prompt's ids and the number of new tokens."""
    pipeline = openvino_genai.LLMPipeline(str(path), "CPU", **EXACT, enable_save_ov_model=True)
    ids = np.array([request["prompt"]], dtype=np.int64)

    def write(count: int) -> list[int]:
        settings = openvino_genai.GenerationConfig(max_new_tokens=count, ignore_eos=True, do_sample=False)
        return list(pipeline.generate(openvino.Tensor(ids), settings).tokens[0])

    tokens = write(request["new"])
    started = time.perf_counter()
    write(4 * request["new"])
    seconds = time.perf_counter() - started
    model = openvino.Core().compile_model(path.with_name("openvino_model.xml"), "CPU", EXACT)
    inputs = {
        "input_ids": ids,
        "attention_mask": np.ones_like(ids),
        "position_ids": np.arange(ids.shape[1])[None],
        "beam_idx": np.zeros(1, dtype=np.int32),
    }
    np.save(path.with_name("logits.npy"), next(iter(model(inputs).values()))[0])
    return {
        "version": openvino_genai.__version__,
        "tokens": [int(token) for token in tokens],
        "tokens_per_second": 4 * request["new"] / seconds,
    }


if __name__ == "__main__":
    print(json.dumps(main(Path(sys.argv[1]), json.loads(sys.argv[2]))))
