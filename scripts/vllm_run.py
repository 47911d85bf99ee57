"""Write some tokens with vLLM on a CPU: runs in an environment of vLLM's own, and imports nothing of this package.

    python scripts/vllm_run.py FOLDER '{"prompt": [1, 2, 3], "new": 16}'

prints one line of JSON: version of vLLM, whose product of 4-bit matrices was taken, the tokens, log-probabilities of
the prompt's tokens from the second on, and tokens per second of a second, longer run.

vLLM's product of 4-bit matrices on CPUs, `cpu_gemm_wna16`, is compiled for AVX-512 alone. Elsewhere it is replaced here
by unpacking with vLLM's own function and torch's product, so that everything else can still be compared.
"""

import json
import os
import sys
import time
from typing import Any

# In this process, so that what is replaced below is replaced where the model runs.
os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")


def has_product() -> bool:
    """Whether vLLM was compiled with its own product for this processor."""
    import torch
    import vllm._custom_ops  # noqa: F401 - loads its operators

    return hasattr(torch.ops._C, "cpu_gemm_wna16")


def replace_product() -> None:
    """Unpack 4-bit matrices once they are loaded, and multiply by torch."""
    import torch
    from vllm.model_executor.kernels.linear.mixed_precision.cpu import CPUWNA16LinearKernel
    from vllm.model_executor.layers.quantization.utils import quant_utils

    def process_weights_after_loading(self: Any, layer: Any) -> None:
        packed, scales = getattr(layer, self.w_q_name), getattr(layer, self.w_s_name)
        codes = quant_utils.unpack_quantized_values_into_int32(packed.data, self.config.weight_type, 1) - 8
        repeated = scales.data.repeat_interleave(codes.shape[1] // scales.shape[1], dim=1)
        layer.dense = codes.to(scales.dtype) * repeated

    def apply_weights(self: Any, layer: Any, x: Any, bias: Any = None) -> Any:
        return torch.nn.functional.linear(x, layer.dense, bias)

    CPUWNA16LinearKernel.process_weights_after_loading = process_weights_after_loading
    CPUWNA16LinearKernel.apply_weights = apply_weights


def main(folder: str, request: dict[str, Any]) -> dict[str, Any]:
    """What is printed; `request` holds the prompt's ids and the number of new tokens."""
    own = has_product()
    if not own:
        replace_product()
    import vllm

    model = vllm.LLM(
        folder, max_model_len=128, enforce_eager=True, distributed_executor_backend="uni", disable_log_stats=True
    )
    prompt, new = request["prompt"], request["new"]

    def write(count: int, **options: Any) -> Any:
        sampling = vllm.SamplingParams(temperature=0, max_tokens=count, ignore_eos=True, **options)
        return model.generate([{"prompt_token_ids": prompt}], sampling, use_tqdm=False)[0]

    output = write(new, prompt_logprobs=0)
    started = time.perf_counter()
    write(4 * new)
    seconds = time.perf_counter() - started
    stated = zip(output.prompt_logprobs[1:], prompt[1:], strict=True)
    return {
        "version": vllm.__version__,
        "own_product": own,
        "tokens": list(output.outputs[0].token_ids),
        "log_probabilities": [position[token].logprob for position, token in stated],
        "tokens_per_second": 4 * new / seconds,
    }


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1], json.loads(sys.argv[2]))))
