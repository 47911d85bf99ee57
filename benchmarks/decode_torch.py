"""Packed checkpoints in torch: as 16-bit Transformers models, in the packed runtime, and as the judge in float32."""

from typing import Any

import numpy as np
import torch
from decode_engine import Written, answer, by_steps, main
from torch import Tensor
from transformers import DynamicCache
from transformers import __version__ as transformers_version
from transformers.utils.logging import disable_progress_bar

from edgerazor.checkpoint import load_model
from edgerazor.core.layers.attention import remove_kv_quantizer


class TorchEngine:
    """`kind`: `bf16` and `judge` (float32) compute with the weights alone, `packed` as trained."""

    def __init__(self, request: dict[str, Any]):
        disable_progress_bar()
        torch.set_num_threads(request["threads"])
        kind = request["kind"]
        if kind == "packed":
            self.model: Any = load_model(request["model"])
        else:
            dtype = torch.float32 if kind == "judge" else torch.bfloat16
            self.model = load_model(request["model"], dtype=dtype, dequantize=True)
            remove_kv_quantizer(self.model)
        self.version = f"torch {torch.__version__}, Transformers {transformers_version}"
        self.logits: list[Tensor] = []
        self.facts = {"weight_bytes": self._weight_bytes()}

    def write(self, prompt: list[int], count: int) -> Written:
        cache = DynamicCache(config=self.model.config)
        self.logits = []

        @torch.no_grad()
        def feed(ids: list[int]) -> int:
            output = self.model(input_ids=torch.tensor([ids]), past_key_values=cache, use_cache=True, logits_to_keep=1)
            self.logits.append(output.logits[0, -1])
            return int(self.logits[-1].argmax())

        return by_steps(feed, prompt, count)

    def _weight_bytes(self) -> int:
        """Of the matrices in memory, without an embedding that only a row is taken from."""
        tied = self.model.config.tie_word_embeddings
        looked_up = set() if tied else {id(value) for value in _values(self.model.get_input_embeddings())}
        found = {id(value): value for value in _values(self.model) if value.ndim > 1 and id(value) not in looked_up}
        return sum(value.numel() * value.element_size() for value in found.values())


def _values(module: torch.nn.Module) -> list[Tensor]:
    return [*module.parameters(), *module.buffers()]


def work(request: dict[str, Any]) -> dict[str, Any]:
    """Figures; the judge leaves float32 logits `[new, vocabulary]` in the file `logits` instead."""
    if request["kind"] != "judge":
        return answer(TorchEngine, request)
    judge = TorchEngine(request)
    tokens = judge.write(request["prompt"], request["new"]).tokens
    np.save(request["logits"], torch.stack(judge.logits).float().numpy())
    return {"tokens": tokens}


if __name__ == "__main__":
    main(work)
