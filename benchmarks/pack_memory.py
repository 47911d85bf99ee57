"""Resident memory of packing a sharded checkpoint of random weights, which is made first.

    python -m benchmarks.pack_memory FOLDER --gigabytes 8 --preset 1.58-bit

The model is Llama-shaped: width 4096, as many layers as the size asks for, in shards of about one gigabyte.
"""

import argparse
import json
import resource
import sys
import time
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import AutoConfig, AutoModelForCausalLM

from edgerazor.checkpoint.pack_source import pack_source
from edgerazor.core.discovery import load_plugins

_SHAPE = {
    "vocab_size": 32000,
    "hidden_size": 4096,
    "intermediate_size": 11008,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "max_position_embeddings": 4096,
}
_LAYER_BYTES = 2 * (2 * 4096 * 4096 + 2 * 1024 * 4096 + 3 * 4096 * 11008)
_SHARD_BYTES = 10**9


def write_model(folder: Path, gigabytes: float) -> None:
    """The sharded checkpoint, one tensor in memory at a time; nothing where it is there already."""
    if (folder / "model.safetensors.index.json").exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    layers = max(1, round((gigabytes * 1e9 - 4 * 32000 * 4096) / _LAYER_BYTES))
    config = AutoConfig.for_model("llama", num_hidden_layers=layers, dtype="bfloat16", **_SHAPE)
    config.architectures = ["LlamaForCausalLM"]
    config.save_pretrained(folder)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    places: dict[str, str] = {}
    shard: dict[str, torch.Tensor] = {}
    generator = torch.Generator().manual_seed(0)
    parameters = list(model.named_parameters())
    for index, (name, parameter) in enumerate(parameters):
        values = torch.empty(parameter.shape, dtype=torch.bfloat16)
        shard[name] = values.normal_(0, 0.02, generator=generator) if parameter.ndim > 1 else values.fill_(1)
        full = sum(2 * tensor.numel() for tensor in shard.values()) >= _SHARD_BYTES
        if full or index == len(parameters) - 1:
            file = f"model-{len(set(places.values())):05d}.safetensors"
            save_file(shard, folder / file, {"format": "pt"})
            places |= dict.fromkeys(shard, file)
            shard.clear()
    index_file = folder / "model.safetensors.index.json"
    index_file.write_text(json.dumps({"metadata": {}, "weight_map": places}), encoding="utf-8")


def main() -> None:
    """Make the model in a run of its own, so that its memory is not counted; then pack it and print the peak."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--gigabytes", type=float, default=8)
    parser.add_argument("--preset", default="1.58-bit")
    arguments = parser.parse_args()
    source = arguments.folder / f"{arguments.gigabytes:g}GB"
    if not (source / "model.safetensors.index.json").exists():
        write_model(source, arguments.gigabytes)
        sys.exit(f"{source} is made; run the same line again to pack it")
    started = time.monotonic()
    output = arguments.folder / f"packed-{arguments.preset}"
    pack_source(str(source), registry=load_plugins(), output=output, preset=arguments.preset)
    size = sum(path.stat().st_size for path in source.glob("*.safetensors"))
    peak = 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(f"{size / 1e9:.2f} GB of weights: {peak / 1e9:.2f} GB resident at most, {time.monotonic() - started:.0f} s")


if __name__ == "__main__":
    main()
