"""Adapters of PEFT on quantization-aware layers learn beside them, and are not merged into them.

Merging adds what an adapter learned to the latent weight, which the next forward pass rounds again: most of a small
change is lost. PEFT asks no layer whether it may, so its wrappers, which keep the layer as `base_layer`, are recognized
as they are made, by PyTorch's hook for registered submodules.
"""

from functools import partial
from typing import Any, NoReturn

from torch import nn
from torch.nn.modules.module import register_module_module_registration_hook

from edgerazor.errors import TrainingError

_WRAPPED = "base_layer"
_hooks: list[Any] = []


def refuse_merging() -> None:
    """From now on, `merge` of a wrapper around a layer whose weight is fake-quantized raises TrainingError."""
    if not _hooks:
        _hooks.append(register_module_module_registration_hook(_on_registered))


def _on_registered(wrapper: nn.Module, name: str, layer: nn.Module | None) -> None:
    if name == _WRAPPED and callable(getattr(type(wrapper), "merge", None)) and _is_quantized(layer):
        wrapper.__dict__["merge"] = partial(_refuse, type(layer).__name__)


def _is_quantized(layer: nn.Module | None) -> bool:
    return any(getattr(layer, name, None) is not None for name in ("weight_quantizer", "weight_quantizers"))


def _refuse(layer: str, *args: Any, **kwargs: Any) -> NoReturn:
    raise TrainingError(
        f"an adapter cannot be merged into a {layer}: its weight is rounded again at every use, so most of what the "
        "adapter learned would be lost. Pack the student, put the adapter on load_model(FOLDER, dequantize=True), "
        "whose weights are the same, and merge it there"
    )
