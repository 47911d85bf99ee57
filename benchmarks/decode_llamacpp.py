"""How fast do our GGUF files run in llama.cpp, next to 16 bits, to 8 bits, and to the usual way of re-quantizing?

python benchmarks/decode_llamacpp.py --work FOLDER     (7 GB of disk; weights are random, Qwen3-0.6B by shape)
"""

import argparse
import dataclasses
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from contest import medians, memory, publish, run_rounds
from random_models import packed_model
from rich.console import Console

from edgerazor.checkpoint import open_checkpoint
from edgerazor.cli.exports import print_export
from edgerazor.core.discovery import load_plugins
from edgerazor.core.tensor import QuantizedTensor
from edgerazor.export.export import export_to

PROMPT, GENERATED = 64, 96
OURS = {
    "1.58 bit, size": ("1.58-bit", ["profile=size"]),
    "1.58 bit, TQ2_0": ("1.58-bit", ["profile=size", 'types=[{match: "model.layers.*", type: TQ2_0}]']),
    "1.58 bit, speed_cpu": ("1.58-bit", ["profile=speed_cpu"]),
    "1.58 bit, compatible": ("1.58-bit", ["profile=compatible"]),
    "1.88 bit per tensor, size": ("1.88-bit-tensor", ["profile=size"]),
    "1.88 bit per tensor, speed_cpu": ("1.88-bit-tensor", ["profile=speed_cpu"]),
    "1.88 bit in rows, size": ("1.88-bit", ["profile=size"]),
    "4 bit, size": ("4-bit", ["profile=size"]),
    "4 bit, speed_cpu": ("4-bit", ["profile=speed_cpu"]),
}
DENSE = {"F16": (1, torch.float16), "BF16": (30, torch.bfloat16)}
REQUANTIZED = {"Q8_0": 7, "Q4_0 re-quantized": 2, "TQ2_0 re-quantized": 37}
COLUMNS = {
    "name": "file",
    "mb": "MB",
    "prompt": "prompt tok/s",
    "decode": "decode tok/s",
    "ratio": "× F16",
    "ratio_bf16": "× BF16",
    "memory": "memory, MiB",
    "changed": "weights changed",
}


def make_files(work: Path, console: Console) -> dict[str, Path]:
    """Every contestant's file, made where it is not there yet."""
    files, registry = {}, load_plugins()
    for name, (preset, settings) in OURS.items():
        files[name] = work / f"{name.replace(' ', '_').replace(',', '')}.gguf"
        if not files[name].exists():
            result = export_to(packed_model(work, preset), "gguf", files[name], settings, registry=registry)
            print_export(result, console)
    for name in DENSE:
        files[name] = work / f"{name}.gguf"
        if not files[name].exists():
            write_dense(packed_model(work, "1.58-bit"), files[name], name)
    for name, kind in REQUANTIZED.items():
        files[name] = work / f"{name.replace(' ', '_')}.gguf"
        if not files[name].exists():
            requantize(files["BF16"], files[name], kind)
    return {name: files[name] for name in (*DENSE, *REQUANTIZED, *OURS)}


def write_dense(checkpoint: Path, path: Path, name: str) -> None:
    """The de-quantized weights of a checkpoint in 16 bits: what a converter makes of a saved student."""
    from edgerazor.plugins.exporters.gguf.report import general_keys
    from edgerazor.plugins.exporters.gguf.write import write_gguf

    kind, dtype = DENSE[name]
    opened = open_checkpoint(checkpoint)
    registry = load_plugins()
    plan = registry.build(registry.params("exporter", "gguf", path=str(path))).planned(opened)
    entries = [
        dataclasses.replace(entry, type_name=name, type_id=kind, bytes=2 * entry.facts.weights)
        if entry.facts.quantized
        else entry
        for entry in plan.entries
    ]

    class Dense:
        def read(self, tensor: str) -> torch.Tensor:
            value = opened.read(tensor)
            return value.dequantize(torch.float32).to(dtype) if isinstance(value, QuantizedTensor) else value

    keys = {**general_keys(opened, plan), **plan.metadata, "general.file_type": 1 if name == "F16" else 32}
    write_gguf(path, plan.architecture.name, keys, entries, Dense(), lambda done, total: None)  # type: ignore[arg-type]


def requantize(source: Path, path: Path, kind: int) -> None:
    """llama.cpp's own quantizer over the 16-bit file."""
    import llama_cpp

    options = llama_cpp.llama_model_quantize_default_params()
    options.ftype, options.nthread = kind, 2
    # The embedding as our presets have it; by default it would become Q6_K.
    options.token_embedding_type = 8 if kind == 7 else 2
    options.output_tensor_type = options.token_embedding_type
    path_bytes = [str(name).encode() for name in (source, path)]
    status = llama_cpp.llama_model_quantize(*path_bytes, options)
    if status:
        raise SystemExit(f"llama_model_quantize: status {status}")


def changed_weights(path: Path, truth: Path) -> float:
    """Share of the matrices' weights that differ from those of the checkpoint."""
    from edgerazor.plugins.exporters.gguf.architectures import ARCHITECTURES, tensor_name
    from edgerazor.plugins.exporters.gguf.read import open_gguf

    opened, file = open_checkpoint(truth), open_gguf(path)
    different = total = 0
    for name in opened.names():
        value = opened.read(name)
        if not isinstance(value, QuantizedTensor):
            continue
        stored = file.tensors[str(tensor_name(opened.role(name), ARCHITECTURES["qwen3"]))]
        rows = min(256, value.codes.shape[0])
        found = stored.decoder.rows(np.asarray(file.raw(stored)[:rows]), value.codes.shape[1])
        expected = value.dequantize(torch.float32)[:rows].numpy()
        different, total = different + int((found != expected).sum()), total + expected.size
    return different / total


def work(path: str, threads: int) -> None:
    """One measurement in a process of its own; prints figures as JSON."""
    from edgerazor.plugins.exporters.gguf.runtime import LlamaCppRuntime

    before = memory()
    runtime = LlamaCppRuntime(path, context_length=512, threads=threads)
    prompt = np.random.default_rng(0).integers(1000, 100_000, PROMPT).tolist()
    runtime.feed(prompt[:8])
    runtime.restart()
    started = time.perf_counter()
    logits = runtime.feed(prompt)
    read = time.perf_counter()
    for _ in range(GENERATED):
        logits = runtime.feed([int(logits[0].argmax())])
    written = time.perf_counter()
    used = memory(peak=True) - before
    print(json.dumps({"prompt": PROMPT / (read - started), "decode": GENERATED / (written - read), "memory": used}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, default=Path("benchmark-models"))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--worker")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results" / "decode_llamacpp.json")
    arguments = parser.parse_args()
    if arguments.worker:
        work(arguments.worker, arguments.threads)
        return
    console = Console()
    arguments.work.mkdir(parents=True, exist_ok=True)
    files = make_files(arguments.work, console)
    commands = {name: [str(path), "--threads", str(arguments.threads)] for name, path in files.items()}
    measured = run_rounds(Path(__file__), commands, arguments.rounds, console)
    best: dict[str, dict[str, Any]] = {name: medians(rounds) for name, rounds in measured.items()}
    truths = {name: OURS.get(name, ("1.58-bit", []))[0] for name in files}
    rows = [
        {
            "name": name,
            "mb": files[name].stat().st_size / 1e6,
            **best[name],
            "ratio": best[name]["decode"] / best["F16"]["decode"],
            "ratio_bf16": best[name]["decode"] / best["BF16"]["decode"],
            "changed": f"{100 * changed_weights(files[name], packed_model(arguments.work, truths[name])):.1f} %",
        }
        for name in files
    ]
    import llama_cpp

    facts = {
        "llama_cpp_python": llama_cpp.__version__,
        "shape": "Qwen3-0.6B, random weights",
        "threads": arguments.threads,
        "prompt_tokens": PROMPT,
        "generated_tokens": GENERATED,
        "rounds": measured,
    }
    publish(arguments.output, rows, COLUMNS, facts, console)


if __name__ == "__main__":
    main()
