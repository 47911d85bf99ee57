"""Small models as other programs write them: each by the program's own code, or by a slow reading of its layout."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from tests.runs import save_model

GROUP = 32
Store = Callable[[str, Tensor], dict[str, Tensor]]


def write_folder(folder: Path, section: dict[str, Any] | None, store: Store, **values: Any) -> Path:
    """A tiny Qwen3 whose decoder matrices `store` turns into tensors of the format, by module name."""
    save_model(folder, **{"tie_word_embeddings": False, **values})
    tensors: dict[str, Tensor] = {}
    for name, value in load_file(folder / "model.safetensors").items():
        quantized = value.ndim == 2 and ".layers." in name
        tensors |= store(name.removesuffix(".weight"), value) if quantized else {name: value}
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    if section is not None:
        edit_config(folder, quantization_config=section)
    return folder


def edit_config(folder: Path, **values: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def edit_weights(folder: Path, edit: Callable[[dict[str, Tensor]], Any]) -> None:
    tensors = load_file(folder / "model.safetensors")
    edit(tensors)
    save_file({name: value.contiguous() for name, value in tensors.items()}, folder / "model.safetensors")


def symmetric_codes(weight: Tensor, bits: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Codes int8 `[R, C]` down to -2^(bits-1), and scales `[R, G]` that are no absmax of what they stand for."""
    groups = weight.float().unflatten(-1, (-1, GROUP))
    scale = (groups.abs().amax(-1) / (2 ** (bits - 1) - 0.4)).to(dtype)
    codes = torch.round(groups / scale.float().unsqueeze(-1)).clamp(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
    return codes.flatten(-2).to(torch.int8), scale


def packed_along_rows(values: Tensor, bits: int) -> Tensor:
    """int32 `[W, N]` from whole numbers `[C, N]`: bit by bit, the first row in the lowest bits."""
    count, width = values.shape
    words = [[0] * width for _ in range(-(-count * bits // 32))]
    for row, column in ((row, column) for row in range(count) for column in range(width)):
        for bit in range(bits):
            place = row * bits + bit
            words[place // 32][column] |= (int(values[row, column]) >> bit & 1) << (place % 32)
    return torch.tensor(words, dtype=torch.int64).sub_(2**32 * (torch.tensor(words) >= 2**31)).to(torch.int32)


def gptq_tensors(name: str, weight: Tensor, bits: int, zero_below: int = 1) -> dict[str, Tensor]:
    """The four tensors of one matrix."""
    codes, scale = symmetric_codes(weight, bits, torch.float16)
    middle = 2 ** (bits - 1)
    zeros = torch.full((scale.shape[1], len(weight)), middle - zero_below)
    return {
        f"{name}.qweight": packed_along_rows(codes.t().to(torch.int64) + middle, bits),
        f"{name}.scales": scale.t().contiguous(),
        f"{name}.qzeros": packed_along_rows(zeros.t(), bits).t().contiguous(),
        f"{name}.g_idx": torch.arange(weight.shape[1], dtype=torch.int32) // GROUP,
    }
