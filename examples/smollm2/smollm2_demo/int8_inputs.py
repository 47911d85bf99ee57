"""A model whose products round their inputs to 8 bits, as llama.cpp does in any case."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from edgerazor.core.registry import Registry

# llama.cpp's Q8_0: a scale for 32 inputs.
QUANTIZER = {"bits": 8, "group_size": 32}


@contextmanager
def int8_inputs(model: nn.Module, registry: Registry) -> Iterator[None]:
    """Round the inputs of every linear layer of a model for the block."""
    quantizer: Any = registry.build(registry.params("quantizer", "int", **QUANTIZER))

    def round_input(layer: nn.Module, inputs: tuple[Tensor]) -> tuple[Tensor]:
        return (quantizer.fake_quantize(inputs[0]),)

    layers = [layer for layer in model.modules() if isinstance(layer, nn.Linear)]
    handles = [layer.register_forward_pre_hook(round_input) for layer in layers]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
