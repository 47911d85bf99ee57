"""How fast do our ONNX folders run in ONNX Runtime, next to float32, to torch in bfloat16, and to llama.cpp?

python benchmarks/decode_onnxruntime.py --work FOLDER     (10 GB of disk; weights are random, Qwen3-0.6B by shape)
"""

import argparse
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from contest import medians, memory, publish, run_rounds
from random_models import packed_model
from rich.console import Console

from edgerazor.checkpoint import open_checkpoint
from edgerazor.cli.exports import print_export
from edgerazor.core.contracts import TensorRole
from edgerazor.core.discovery import load_plugins
from edgerazor.core.packing import content_digest
from edgerazor.core.tensor import QuantizedTensor
from edgerazor.export.export import export_to

PROMPT, GENERATED, CONTEXT = 64, 96, 1024
OURS = {
    "1.58 bit": ("1.58-bit", []),
    "1.58 bit in 4-bit storage": ("1.58-bit", ["ternary_storage=4bit"]),
    "1.88 bit": ("1.88-bit", []),
    "2.79 bit": ("2.79-bit", []),
    "4 bit": ("4-bit", []),
}
GGUF = {
    "llama.cpp, 1.58 bit, TQ2_0": ("1.58-bit", ["profile=size", 'types=[{match: "model.layers.*", type: TQ2_0}]']),
    "llama.cpp, 1.58 bit, speed_cpu": ("1.58-bit", ["profile=speed_cpu"]),
    "llama.cpp, 4 bit, size": ("4-bit", ["profile=size"]),
}
COLUMNS = {
    "name": "model",
    "mb": "MB",
    "prompt_ms": "prompt of 64, ms",
    "decode_ms": "ms per token",
    "decode": "tok/s",
    "ratio": "× ORT float32",
    "ratio_bf16": "× torch bf16",
    "memory": "memory, MiB",
}


class Dense:
    """A checkpoint whose matrices were never quantized: what the exporter makes of a float model."""

    def __init__(self, opened: Any):
        self._opened = opened
        self.folder, self.recipe, self.digest = opened.folder, opened.recipe, content_digest(())
        self.config = {key: value for key, value in opened.config.items() if key != "quantization_config"}

    def names(self) -> Iterator[str]:
        return iter(self._opened.names())

    def read(self, name: str) -> torch.Tensor:
        value = self._opened.read(name)
        return value.dequantize(torch.float32) if isinstance(value, QuantizedTensor) else value

    def role(self, name: str) -> TensorRole:
        return self._opened.role(name)  # type: ignore[no-any-return]


def make_models(work: Path, console: Console) -> dict[str, Path]:
    """Every contestant's folder or file, made where it is not there yet; figures of our exports are printed."""
    registry = load_plugins()
    models = {"torch bf16": packed_model(work, "1.58-bit"), "ORT float32": work / "onnx_float32"}
    if not models["ORT float32"].exists():
        params = registry.params("exporter", "onnx", path=str(models["ORT float32"]), context_length=CONTEXT)
        registry.build(params).export(Dense(open_checkpoint(packed_model(work, "1.58-bit"))), models["ORT float32"])
    for kind, contestants in (("onnx", OURS), ("gguf", GGUF)):
        for name, (preset, settings) in contestants.items():
            place = name.replace(" ", "_").replace(",", "")
            models[name] = work / (f"onnx_{place}" if kind == "onnx" else f"{place}.gguf")
            extra = [f"context_length={CONTEXT}"] if kind == "onnx" else []
            if not models[name].exists():
                started = time.perf_counter()
                exported = export_to(
                    packed_model(work, preset), kind, models[name], [*settings, *extra], registry=registry
                )
                print_export(exported, console)
                console.print(f"{name}: exported in {time.perf_counter() - started:.0f} s, {memory(peak=True):.0f} MiB")
    return models


def open_model(path: Path, kind: str, threads: int) -> Any:
    """A runtime by the first word of the contestant's name."""
    if kind == "llama.cpp":
        from edgerazor.plugins.exporters.gguf.runtime import LlamaCppRuntime

        return LlamaCppRuntime(path, context_length=512, threads=threads)
    if kind == "torch":
        from edgerazor.checkpoint import load_model
        from edgerazor.models.transformers_runtime import TransformersRuntime

        torch.set_num_threads(threads)
        return TransformersRuntime(load_model(path, dtype=torch.bfloat16, dequantize=True), _NoWords())
    from edgerazor.plugins.exporters.onnx.runtime import OnnxRuntime

    return OnnxRuntime(path, threads=threads)


class _NoWords:
    eos_token_id = chat_template = None


def work(path: str, kind: str, threads: int) -> None:
    """One measurement in a process of its own; prints figures as JSON."""
    before = memory()
    runtime = open_model(Path(path), kind, threads)
    loaded = memory() - before
    prompt = np.random.default_rng(0).integers(1000, 100_000, PROMPT).tolist()
    runtime.feed(prompt)
    runtime.restart()
    started = time.perf_counter()
    logits = runtime.feed(prompt)
    read = time.perf_counter()
    steps = []
    for _ in range(GENERATED):
        before_step = time.perf_counter()
        logits = runtime.feed([int(logits[0].argmax())])
        steps.append(time.perf_counter() - before_step)
    print(
        json.dumps({"prompt_ms": 1e3 * (read - started), "decode_ms": 1e3 * float(np.median(steps)), "memory": loaded})
    )


def size_of(path: Path) -> float:
    """Size on disk of a file, or of the files of a folder, in megabytes of 10^6 bytes."""
    return sum(file.stat().st_size for file in ([path] if path.is_file() else path.iterdir())) / 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, default=Path("benchmark-models"))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--worker")
    parser.add_argument("--kind", default="")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results" / "decode_onnxruntime.json")
    arguments = parser.parse_args()
    if arguments.worker:
        work(arguments.worker, arguments.kind, arguments.threads)
        return
    console = Console()
    arguments.work.mkdir(parents=True, exist_ok=True)
    models = make_models(arguments.work, console)
    commands = {
        name: [str(path), "--kind", name.split()[0].rstrip(","), "--threads", str(arguments.threads)]
        for name, path in models.items()
    }
    measured = run_rounds(Path(__file__), commands, arguments.rounds, console)
    best = {name: medians(rounds) for name, rounds in measured.items()}
    rows = [
        {
            "name": name,
            "mb": size_of(arguments.work / "float" / "model.safetensors" if name == "torch bf16" else models[name]),
            **best[name],
            "decode": 1e3 / best[name]["decode_ms"],
            "ratio": best["ORT float32"]["decode_ms"] / best[name]["decode_ms"],
            "ratio_bf16": best["torch bf16"]["decode_ms"] / best[name]["decode_ms"],
        }
        for name in models
    ]
    import llama_cpp
    import onnxruntime

    facts = {
        "onnxruntime": onnxruntime.__version__,
        "llama_cpp_python": llama_cpp.__version__,
        "torch": torch.__version__,
        "shape": "Qwen3-0.6B, random weights",
        "threads": arguments.threads,
        "prompt_tokens": PROMPT,
        "generated_tokens": GENERATED,
        "rounds": measured,
    }
    publish(arguments.output, rows, COLUMNS, facts, console)


if __name__ == "__main__":
    main()
