"""An exported folder in vLLM for CPUs, by its own products."""

import os
from typing import Any

from decode_engine import Written, answer, by_difference, main

os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")


class VllmEngine:
    def __init__(self, request: dict[str, Any]):
        os.environ["OMP_NUM_THREADS"] = str(request["threads"])
        import torch
        import vllm
        import vllm._custom_ops

        if not hasattr(torch.ops._C, "cpu_gemm_wna16"):
            raise RuntimeError("vLLM's product of 4-bit matrices, cpu_gemm_wna16, needs a processor with AVX-512")
        self._vllm = vllm
        self._model = vllm.LLM(
            request["model"],
            max_model_len=request["context"],
            enforce_eager=True,
            enable_prefix_caching=False,
            distributed_executor_backend="uni",
            disable_log_stats=True,
        )
        self.version = f"vllm {vllm.__version__}"

    def write(self, prompt: list[int], count: int) -> Written:
        return by_difference(self._generate, prompt, count)

    def _generate(self, prompt: list[int], count: int) -> list[int]:
        sampling = self._vllm.SamplingParams(temperature=0, max_tokens=count, ignore_eos=True)
        found = self._model.generate([{"prompt_token_ids": prompt}], sampling, use_tqdm=False)
        return list(found[0].outputs[0].token_ids)


def work(request: dict[str, Any]) -> dict[str, Any]:
    return answer(VllmEngine, request)


if __name__ == "__main__":
    main(work)
