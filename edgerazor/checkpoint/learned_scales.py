"""Trained scales beside the latent weights of a run: given, saved and read (`training.scale_learning_rate`).

A packed checkpoint needs none of this: its scales are what they came to.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from edgerazor.core.layers.table import kind_named
from edgerazor.core.learned_scales import LearnedScales
from edgerazor.core.plan import Plan
from edgerazor.errors import CheckpointError, PlanError

LEARNED_SCALES = "learned_scales.safetensors"
_LAYER = re.compile(r"(^|\.)layers\.\d+\.")
_PARTS = ("start", "factors", "qmax")


def learn_scales(model: Any, plan: Plan) -> dict[str, tuple[Any, LearnedScales]]:
    """Give the matrices of decoder layers scales of their own, which are those of the weights as they are.

    Args:
        model: with the plan applied; its quantizers are replaced.
        plan: of the model.

    Returns:
        Layer and scales by the name of the layer; embedding, head and fused experts keep the scales of their data.

    Raises:
        PlanError: the recipe quantizes no such matrix, as of an image classifier.
    """
    scales = {}
    for entry in plan.quantized:
        if entry.kind == "linear" and _LAYER.search(entry.name):
            layer: Any = kind_named(entry.kind).find(model, entry.name)
            with torch.no_grad():
                start = layer.weight_quantizer.quantize(layer.weight.detach())
            layer.weight_quantizer = LearnedScales(layer.weight_quantizer, start)
            scales[entry.name] = (layer, layer.weight_quantizer)
    if not scales:
        raise PlanError("training.scale_learning_rate: the recipe quantizes no matrix of a decoder layer")
    return scales


def save_scales(scales: Mapping[str, tuple[Any, LearnedScales]], folder: Path) -> None:
    """Write what `load_scales` reads."""
    parts = {
        f"{name}.{part}": getattr(found, part).detach().cpu().contiguous()
        for name, (_, found) in scales.items()
        for part in _PARTS
    }
    save_file(parts, folder / LEARNED_SCALES)


def load_scales(scales: Mapping[str, tuple[Any, LearnedScales]], folder: Path) -> None:
    """Read the scales of the same matrices.

    Raises:
        CheckpointError: the file is missing or cannot be read, or has no scales of that shape for a matrix.
    """
    path = folder / LEARNED_SCALES
    try:
        tensors = load_file(path)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path}: the trained scales of this run cannot be read: {error}") from error
    for name, (_, found) in scales.items():
        for part in _PARTS:
            stored, own = tensors.get(f"{name}.{part}"), getattr(found, part)
            if stored is None or stored.shape != own.shape or stored.dtype != own.dtype:
                raise CheckpointError(f"{path}: holds no {part} of {own.dtype} {list(own.shape)} for {name}")
            own.data.copy_(stored)
