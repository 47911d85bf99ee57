"""A GGUF file in OpenVINO GenAI, with its own choice of precision or with everything but weights in float32."""

from typing import Any

import numpy as np
import openvino
import openvino_genai
from decode_engine import Written, answer, main

EXACT = {"INFERENCE_PRECISION_HINT": "f32", "KV_CACHE_PRECISION": "f32", "DYNAMIC_QUANTIZATION_GROUP_SIZE": "0"}


class OpenVinoEngine:
    def __init__(self, request: dict[str, Any]):
        options = {"INFERENCE_NUM_THREADS": request["threads"], **(EXACT if request["kind"] == "exact" else {})}
        self._pipeline = openvino_genai.LLMPipeline(request["model"], "CPU", **options)
        self.version = f"openvino-genai {openvino_genai.__version__}"

    def write(self, prompt: list[int], count: int) -> Written:
        settings = openvino_genai.GenerationConfig(max_new_tokens=count, ignore_eos=True, do_sample=False)
        found = self._pipeline.generate(openvino.Tensor(np.array([prompt], dtype=np.int64)), settings)
        first = found.perf_metrics.get_ttft().mean / 1e3
        whole = found.perf_metrics.get_generate_duration().mean / 1e3
        return Written(list(found.tokens[0]), first, whole - first)


def work(request: dict[str, Any]) -> dict[str, Any]:
    return answer(OpenVinoEngine, request)


if __name__ == "__main__":
    main(work)
