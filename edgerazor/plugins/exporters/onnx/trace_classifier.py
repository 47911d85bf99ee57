"""The graph of an image classifier: from `pixel_values` to `logits`, for any number of images."""

from typing import Any

import onnx_ir as ir
import torch
from torch import Tensor, nn

from edgerazor.core.contracts import ModelFacts
from edgerazor.plugins.exporters.onnx.tracer import axis_of, traced

INPUT, OUTPUT = "pixel_values", "logits"
# Above 1, which tracing would take for a constant.
_BATCH = 2


def trace_classifier(model: Any, facts: ModelFacts) -> ir.Model:
    """The traced graph of `build_model`; its initializers bear the names of the tensors in the model.

    Images `[batch, channels, height, width]` of any height and width where the model takes such, else of its own.

    Args:
        model: with placeholders.
        facts: of the model.

    Raises:
        ExportError: the model does what cannot be traced.
    """
    image = facts.image
    assert image is not None
    any_size = torch.export.Dim.DYNAMIC
    free = {0: any_size, 2: any_size, 3: any_size} if image.any_size else {0: any_size}
    # Sides that differ, so that nothing is taken for a square.
    width = image.width + 32 if image.any_size else image.width
    images = torch.zeros(_BATCH, image.channels, image.height, width)
    graph = traced(_Wrapper(model), (images,), (free,), [INPUT], [OUTPUT])
    _name_axes(graph.graph, any_size=image.any_size)
    return graph


class _Wrapper(nn.Module):
    """Logits alone of a model of transformers."""

    def __init__(self, model: Any):
        super().__init__()
        self.model = model

    def forward(self, pixel_values: Tensor) -> Tensor:
        return self.model(pixel_values=pixel_values).logits  # type: ignore[no-any-return]


def _name_axes(graph: ir.Graph, *, any_size: bool) -> None:
    """Names of the free axes, for whoever reads the file."""
    pixels, logits = graph.inputs[0], graph.outputs[0]
    sides = ["height", "width"] if any_size else [axis_of(pixels, 2), axis_of(pixels, 3)]
    pixels.shape = ir.Shape(["batch", axis_of(pixels, 1), *sides])
    logits.shape = ir.Shape(["batch", axis_of(logits, 1)])
