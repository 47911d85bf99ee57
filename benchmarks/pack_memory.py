"""Resident memory of packing a sharded checkpoint of random weights, which is made first, in a process of its own.

    python -m benchmarks.pack_memory FOLDER --gigabytes 8 --preset 1.58-bit

The model is Llama-shaped: width 4096, as many layers as the size asks for, in shards of about one gigabyte.
"""

import argparse
import json
import multiprocessing
import resource
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from transformers import AutoConfig, AutoModelForCausalLM

from edgerazor.checkpoint.pack_source import pack_source
from edgerazor.core.discovery import load_plugins
from edgerazor.core.tensor_files import INDEX

_SHAPE = {
    "vocab_size": 32000,
    "hidden_size": 4096,
    "intermediate_size": 11008,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "max_position_embeddings": 4096,
}


def write_model(folder: Path, gigabytes: float, shard_bytes: float = 1e9) -> None:
    """The sharded checkpoint, a shard in memory at a time."""
    folder.mkdir(parents=True, exist_ok=True)
    empty, one_layer = (_bytes(_model(layers)) for layers in (0, 1))
    model = _model(max(1, round((gigabytes * 1e9 - empty) / (one_layer - empty))))
    model.config.architectures = [type(model).__name__]
    model.config.save_pretrained(folder)
    places: dict[str, str] = {}
    for number, shard in enumerate(_shards(model, shard_bytes)):
        file = f"model-{number:05d}.safetensors"
        save_file(shard, folder / file, {"format": "pt"})
        places |= dict.fromkeys(shard, file)
    (folder / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": places}), encoding="utf-8")


def _model(layers: int) -> Any:
    config = AutoConfig.for_model("llama", num_hidden_layers=layers, dtype="bfloat16", **_SHAPE)
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)


def _bytes(model: Any) -> int:
    return sum(parameter.nbytes for parameter in model.parameters())


def _shards(model: Any, shard_bytes: float) -> Iterator[dict[str, torch.Tensor]]:
    generator = torch.Generator().manual_seed(0)
    shard: dict[str, torch.Tensor] = {}
    for name, parameter in model.named_parameters():
        values = torch.empty_like(parameter, device="cpu")
        shard[name] = values.normal_(0, 0.02, generator=generator) if parameter.ndim > 1 else values.fill_(1)
        if sum(tensor.nbytes for tensor in shard.values()) >= shard_bytes:
            yield shard
            shard = {}
    if shard:
        yield shard


@torch.no_grad()
def main() -> None:
    """Make the model, unless it is there; pack it and print the peak."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--gigabytes", type=float, default=8)
    parser.add_argument("--preset", default="1.58-bit")
    arguments = parser.parse_args()
    source = arguments.folder / f"{arguments.gigabytes:g}GB"
    if not (source / INDEX).exists():
        # What this takes must not count.
        maker = multiprocessing.get_context("spawn").Process(target=write_model, args=(source, arguments.gigabytes))
        maker.start()
        maker.join()
    before, started = _resident(), time.monotonic()
    output = arguments.folder / f"packed-{arguments.preset}"
    pack_source(str(source), registry=load_plugins(), output=output, preset=arguments.preset)
    size, seconds = sum(path.stat().st_size for path in source.glob("*.safetensors")), time.monotonic() - started
    print(
        f"{size / 1e9:.2f} GB of weights: {_resident() / 1e9:.2f} GB resident at most ({before / 1e9:.2f} GB before), "
        f"{seconds:.0f} s"
    )


def _resident() -> int:
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


if __name__ == "__main__":
    main()
