"""What a distiller learns or settles beside the student: projections between widths, layers chosen by calibration.

It is saved with the optimizer, so that a run can be resumed, and is no part of the student.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from edgerazor.core.contracts import CalibratedSelector
from edgerazor.core.outputs import batch_masks
from edgerazor.distill.distiller import Distiller
from edgerazor.errors import TrainingError

FILE = "distillation.safetensors"


def learned_modules(distiller: Distiller) -> dict[str, nn.Module]:
    """Modules that losses learn themselves, by the name of the loss."""
    return {name: loss.module for name, loss in distiller.named() if loss.module is not None}


def settle_layers(
    distiller: Distiller, teacher: nn.Module, batches: Iterator[Mapping[str, Any]]
) -> dict[str, list[int]]:
    """Let selectors that ask for calibration see the teacher on some batches, and fix their layers.

    Args:
        teacher: the model, where it will run.
        batches: as many as there are; each selector takes what it asks for.

    Returns:
        The layers by the name of the loss; empty if no selector asks.
    """
    waiting = {name: selector for name, selector in _selectors(distiller) if selector.calibration_batches}
    wanted = max((selector.calibration_batches for selector in waiting.values()), default=0)
    device = next(teacher.parameters()).device
    for index, batch in zip(range(wanted), batches, strict=False):
        moved = {key: value.to(device) if isinstance(value, Tensor) else value for key, value in batch.items()}
        with torch.no_grad():
            output = distiller.teacher_adapter.forward(teacher, moved, distiller.teacher_signals)
        mask = batch_masks(moved)[2]
        assert output.hidden_states is not None
        for selector in waiting.values():
            if index < selector.calibration_batches:
                selector.observe(output.hidden_states, mask)
    return {name: selector.settle() for name, selector in waiting.items()}


def settled_layers(distiller: Distiller) -> dict[str, list[int]]:
    """The layers that calibration fixed, by the name of the loss."""
    return {name: selector.settled for name, selector in _selectors(distiller) if selector.settled is not None}


def save_state(distiller: Distiller, folder: Path) -> None:
    """Write what was learned and settled; nothing is written where there is nothing."""
    tensors = {f"{name}.layers": torch.tensor(layers) for name, layers in settled_layers(distiller).items()}
    for name, module in learned_modules(distiller).items():
        tensors |= {f"{name}.module.{key}": value.cpu() for key, value in module.state_dict().items()}
    if tensors:
        save_file(tensors, folder / FILE)


def load_state(distiller: Distiller, folder: Path) -> None:
    """Read what `save_state` wrote, for the same losses.

    Raises:
        TrainingError: something is missing; the message names it.
    """
    path = folder / FILE
    tensors = load_file(path) if path.exists() else {}
    for name, selector in _selectors(distiller):
        if selector.calibration_batches:
            selector.settle(_taken(tensors, f"{name}.layers", path).tolist())
    for name, module in learned_modules(distiller).items():
        keys = module.state_dict()
        module.load_state_dict({key: _taken(tensors, f"{name}.module.{key}", path) for key in keys})


def _taken(tensors: Mapping[str, Tensor], key: str, path: Path) -> Tensor:
    if key not in tensors:
        raise TrainingError(f"{path}: holds no '{key}', which the losses need to go on; start a new run")
    return tensors[key]


def _selectors(distiller: Distiller) -> Iterator[tuple[str, CalibratedSelector]]:
    """Layer selectors that can settle, by the name of the loss they belong to."""
    for name, loss in distiller.named():
        if isinstance(loss.layers, CalibratedSelector):
            yield name, loss.layers
