"""A student whose inputs of linear layers are rounded as llama.cpp rounds them on a CPU."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from edgerazor.checkpoint import load_model, open_checkpoint
from edgerazor.plugins.exporters.gguf.architectures import tensor_name
from edgerazor.plugins.exporters.gguf.read import open_gguf

_BLOCKS_OF_32 = ("Q4_0", "Q8_0", "Q2_0")


def round_per_256(x: Tensor) -> Tensor:
    """Q8_K: the value of largest magnitude becomes -127, in float32; for the TQ and K types."""
    groups = x.float().unflatten(-1, (-1, 256))
    largest = groups.gather(-1, groups.abs().argmax(-1, keepdim=True))
    inverse = torch.where(largest == 0, 0.0, -127.0 / largest)
    codes = torch.round(groups * inverse).clamp(max=127)
    return torch.where(largest == 0, 0.0, codes / torch.where(inverse == 0, 1.0, inverse)).flatten(-2).to(x.dtype)


def round_per_32(x: Tensor) -> Tensor:
    """Q8_0: codes by the float32 scale, values by the same scale in float16."""
    groups = x.float().unflatten(-1, (-1, 32))
    scale = groups.abs().amax(-1, keepdim=True) / 127
    codes = torch.round(groups * torch.where(scale == 0, 0.0, 1 / scale))
    return (codes * scale.half().float()).flatten(-2).to(x.dtype)


def student_as_rounded_by_ggml(folder: Path, file: Path) -> Any:
    """The packed checkpoint as a float model; inputs are rounded by the type that each matrix has in the file."""
    checkpoint = open_checkpoint(folder)
    architecture = checkpoint.facts.gguf
    assert architecture is not None
    model: Any = load_model(folder, dtype=torch.float32, dequantize=True)
    stored = open_gguf(file).tensors
    linears = {name: module for name, module in model.named_modules() if isinstance(module, nn.Linear)}
    for name, module in linears.items():
        in_file = str(tensor_name(checkpoint.role(f"{name}.weight"), architecture))
        place = stored.get(in_file, stored["token_embd.weight"])
        rounding = round_per_32 if place.decoder.name in _BLOCKS_OF_32 else round_per_256
        module.register_forward_pre_hook(lambda module, inputs, rounding=rounding: (rounding(inputs[0]),))
    return model.eval()
