"""The model of transformers that a checkpoint's configuration describes, without parameters."""

from typing import Any

import torch
from accelerate import init_empty_weights
from transformers import AutoConfig

from edgerazor.core.contracts import Checkpoint
from edgerazor.core.layers.conv import Convolution
from edgerazor.errors import ExportError, first_line
from edgerazor.models.types import auto_class, classifies_images
from edgerazor.plugins.exporters.onnx.attention import NAME, WITHOUT_CACHE, register
from edgerazor.plugins.exporters.onnx.rotary import fix_frequencies


def empty_model(checkpoint: Checkpoint) -> Any:
    """The model by its configuration, parameters on the meta device, in evaluation mode.

    Raises:
        ExportError: transformers cannot build it.
    """
    register()
    values = {key: value for key, value in checkpoint.config.items() if key not in ("quantization_config", "dtype")}
    try:
        config = AutoConfig.for_model(**values)
        images = classifies_images(config)
        with init_empty_weights(include_buffers=False):
            model: Any = auto_class(config).from_config(config, dtype=torch.float32, **_attention(config, images))
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ExportError(f"config.json: transformers cannot build this model: {first_line(error)}") from error
    if not images:
        fix_frequencies(model)
    return model.eval()


def _attention(config: Any, images: bool) -> dict[str, str]:
    """Ours; a model without attention takes none."""
    if not images:
        return {"attn_implementation": NAME}
    return {"attn_implementation": WITHOUT_CACHE} if hasattr(config, "num_attention_heads") else {}


def convolutions(checkpoint: Checkpoint) -> dict[str, tuple[int, ...]]:
    """`{module: shape of its weight}` of every convolution.

    Raises:
        ExportError: as `empty_model`.
    """
    modules = empty_model(checkpoint).named_modules()
    return {name: tuple(module.weight.shape) for name, module in modules if isinstance(module, Convolution)}
