"""Is the packed runtime the slow one? A packed checkpoint decodes next to the same model in plain Transformers.

python benchmarks/packed_runtime.py     (random weights, SmolLM2-135M by shape; 3 GB of memory)
"""

import argparse
import gc
import re
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from contest import publish
from random_models import SHAPES
from rich.console import Console
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM, DynamicCache
from transformers.utils import logging

from edgerazor.checkpoint import load_model, open_checkpoint
from edgerazor.checkpoint.pack_source import pack_source
from edgerazor.core.discovery import load_plugins
from edgerazor.core.layers.attention import remove_kv_quantizer
from edgerazor.hf import EdgeRazorConfig

SMOLLM2_135M = {**SHAPES["smollm2-135m"], "tie_word_embeddings": True}
QUICK = {"vocab_size": 256, "hidden_size": 64, "intermediate_size": 128, "num_attention_heads": 1} | {
    "num_key_value_heads": 1,
    "num_hidden_layers": 2,
}
PLAIN, PACKED = "Transformers bfloat16", "packed, as trained"
COLUMNS = {
    "name": "model",
    "load": "load, s",
    "load_ratio": "× plain",
    "ready": "load and first token, s",
    "ready_ratio": "× plain",
    "prompt": "prompt, ms",
    "token": "ms per token",
    "ratio": "× Transformers bfloat16",
    "quartiles": "quartiles",
}
Loader = Callable[[], Any]


def write_models(work: Path, sizes: Mapping[str, Any]) -> tuple[Path, Path]:
    """The same random model in `work`, as a bfloat16 folder and packed by the preset `4-bit`."""
    torch.manual_seed(0)
    model: Any = AutoModelForCausalLM.from_config(AutoConfig.for_model(**sizes), dtype=torch.bfloat16)
    model.save_pretrained(work / "plain")
    pack_source(str(work / "plain"), registry=load_plugins(), output=work / "packed", preset="4-bit")
    return work / "plain", work / "packed"


def contestants(plain: Path, packed: Path) -> dict[str, Loader]:
    """What loads each of them, by name."""

    def transformers(dtype: torch.dtype) -> Any:
        return AutoModelForCausalLM.from_pretrained(plain, dtype=dtype).eval()

    def without_quantizers() -> Any:
        model = load_model(packed, activations=False)
        remove_kv_quantizer(model)
        return model

    return {
        PLAIN: lambda: transformers(torch.bfloat16),
        "Transformers float32": lambda: transformers(torch.float32),
        PACKED: lambda: load_model(packed),
        "packed, inputs not quantized": lambda: load_model(packed, activations=False),
        "packed, nothing but weights": without_quantizers,
    }


class Decoder:
    """A model that reads a prompt and then writes the likeliest token, one by one."""

    def __init__(self, model: Any):
        self.model, self.logits = model, torch.empty(0)
        self.cache = DynamicCache(config=model.config)

    @torch.no_grad()
    def read(self, ids: Tensor) -> Tensor:
        """Logits `[1, vocabulary]` after tokens `[1, N]`."""
        output = self.model(input_ids=ids, past_key_values=self.cache, use_cache=True, logits_to_keep=1)
        self.logits = output.logits[:, -1]
        return self.logits

    def step(self) -> Tensor:
        """Logits after the likeliest token."""
        return self.read(self.logits.argmax(dim=-1, keepdim=True))


def check(plain: Path, packed: Path, prompt: Tensor, steps: int = 4) -> None:
    """Stop unless the packed model's logits are those of the student that it was made from, to the bit."""
    config = EdgeRazorConfig(mode="qat", recipe=dict(open_checkpoint(packed).recipe))
    student: Any = AutoModelForCausalLM.from_pretrained(plain, dtype=torch.bfloat16, quantization_config=config)
    decoders = [Decoder(student.eval()), Decoder(load_model(packed))]
    for step in range(steps + 1):
        ours, theirs = (decoder.step() if step else decoder.read(prompt) for decoder in decoders)
        if not torch.equal(ours, theirs):
            raise SystemExit(f"step {step}: the packed model's logits are not the student's")


def seconds(function: Callable[[], Any]) -> tuple[float, Any]:
    """Seconds that a call takes, and its result."""
    started = time.perf_counter()
    result = function()
    return time.perf_counter() - started, result


def time_loading(loaders: Mapping[str, Loader], rounds: int) -> dict[str, dict[str, list[float]]]:
    """`load` and `ready` of every round: seconds until the model is there, and until its first logits are."""
    measured = {name: {"load": list[float](), "ready": list[float]()} for name in loaders}
    for _ in range(rounds):
        for name, load in loaders.items():
            gc.collect()
            re.purge()  # a program that loads one model has compiled none yet, and transformers has one for each tensor
            loaded, model = seconds(load)
            first, _ = seconds(lambda model=model: Decoder(model).read(torch.tensor([[1]])))
            measured[name]["load"].append(loaded)
            measured[name]["ready"].append(loaded + first)
            del model
    return measured


def time_decoding(loaders: Mapping[str, Loader], prompt: Tensor, tokens: int) -> dict[str, dict[str, list[float]]]:
    """`prompt`, twice, and `token` of every token; all models take turns, and none comes first every time."""
    models = {name: load() for name, load in loaders.items()}
    measured = {name: {"prompt": list[float](), "token": list[float]()} for name in models}
    decoders: dict[str, Decoder] = {}
    for _ in range(2):
        for name, model in models.items():
            decoders[name] = Decoder(model)
            measured[name]["prompt"].append(seconds(lambda name=name: decoders[name].read(prompt))[0])
    order = list(models)
    for _ in range(tokens):
        for name in order:
            measured[name]["token"].append(seconds(decoders[name].step)[0])
        order.append(order.pop(0))
    return measured


def quartiles(own: Sequence[float], other: Sequence[float]) -> str:
    """Quartiles of the ratios of two measurements that took turns."""
    low, _, high = statistics.quantiles([a / b for a, b in zip(own, other, strict=True)])
    return f"{low:.2f}–{high:.2f}"


def table(measured: Mapping[str, Mapping[str, list[float]]]) -> list[dict[str, Any]]:
    """One row per contestant: medians, and their ratios to plain Transformers in bfloat16."""
    median = {name: {key: statistics.median(taken) for key, taken in all_.items()} for name, all_ in measured.items()}
    return [
        {
            "name": name,
            "load": of_model["load"],
            "load_ratio": of_model["load"] / median[PLAIN]["load"],
            "ready": of_model["ready"],
            "ready_ratio": of_model["ready"] / median[PLAIN]["ready"],
            "prompt": 1e3 * min(measured[name]["prompt"]),
            "token": 1e3 * of_model["token"],
            "ratio": of_model["token"] / median[PLAIN]["token"],
            "quartiles": quartiles(measured[name]["token"], measured[PLAIN]["token"]),
        }
        for name, of_model in median.items()
    ]


def main(given: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--layers", type=int, default=SMOLLM2_135M["num_hidden_layers"])
    parser.add_argument("--prompt", type=int, default=64, help="tokens of the prompt")
    parser.add_argument("--tokens", type=int, default=96, help="that are decoded")
    parser.add_argument("--loads", type=int, default=7, help="rounds of loading")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--quick", action="store_true", help="tiny shapes: does the script still run?")
    parser.add_argument("--output", type=Path, help="the JSON; by default in benchmarks/results, or build/ if quick")
    arguments = parser.parse_args(given)
    sizes = SMOLLM2_135M | {"num_hidden_layers": arguments.layers}
    root = Path(__file__).parent
    place = root / "results"
    if arguments.quick:
        sizes, arguments.tokens, arguments.loads, place = SMOLLM2_135M | QUICK, 4, 1, root.parent / "build/benchmarks"
    torch.set_num_threads(arguments.threads)
    logging.disable_progress_bar()
    prompt = torch.randint(sizes["vocab_size"], (1, arguments.prompt), generator=torch.Generator().manual_seed(0))
    with tempfile.TemporaryDirectory() as work:
        plain, packed = write_models(Path(work), sizes)
        check(plain, packed, prompt)
        loaders = contestants(plain, packed)
        loading = time_loading(loaders, arguments.loads)
        decoding = time_decoding(loaders, prompt, arguments.tokens)
    measured = {name: loading[name] | decoding[name] for name in loaders}
    facts = {"shape": sizes, "threads": arguments.threads, "torch": torch.__version__, "measurements": measured}
    publish(arguments.output or place / "packed_runtime.json", table(measured), COLUMNS, facts, Console())


if __name__ == "__main__":
    main()
