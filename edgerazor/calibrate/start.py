"""Training that begins at calibrated rounding: latent weights whose codes and scales are those that GPTQ found."""

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from edgerazor.calibrate.classifier import round_classifier
from edgerazor.calibrate.decoder import Decoder, decoder_layers, layer_dtype
from edgerazor.calibrate.journal import Journal
from edgerazor.calibrate.walk import round_layers
from edgerazor.core.latent_weights import set_latent_weights
from edgerazor.core.plan import Plan
from edgerazor.core.tensor import QuantizedTensor
from edgerazor.errors import PlanError
from edgerazor.kernels.processor import Processor, this_processor


def start_calibrated(
    model: Any,
    plan: Plan,
    rows: list[Tensor],
    processor: Processor | None = None,
    show: Callable[[int, int], None] = lambda done, total: None,
    folder: Path | None = None,
) -> None:
    """Replace latent weights of decoder layers and head, or of a classifier, by those of calibrated rounding, in place.

    Quantized, they have the codes and scales that GPTQ finds. Apart from that they are where the weights were.

    Args:
        model: float32, whole, with the plan applied.
        plan: of the model.
        rows: token ids `[1, T]`; of a classifier pictures `[1, channels, height, width]`.
        processor: the machine's, as for `pack_calibrated`.
        show: called with layers done and layers in all; of a classifier with matrices.
        folder: for states of all rows between the layers; None is the system's for temporary files.

    Raises:
        PlanError: the recipe quantizes no matrix of a decoder layer, or a quantizer has no such latent weights.
    """
    if rows[0].ndim != 4 and not decoder_layers(plan, model):
        raise PlanError("training.start: calibrated, but the recipe quantizes no matrix of a decoder layer")
    weights = {entry.name: model.get_parameter(entry.parameter_name).data for entry in plan.quantized}
    if rows[0].ndim == 4:
        codes = round_classifier(model, plan, rows, show)
    else:
        codes = _of_decoder(model, plan, rows, layer_dtype(processor or this_processor()), show, folder)
    for entry in plan.quantized:
        if entry.name in codes:
            model.get_parameter(entry.parameter_name).data = weights[entry.name]
            set_latent_weights(model, entry, codes[entry.name])


def _of_decoder(
    model: Any,
    plan: Plan,
    rows: list[Tensor],
    dtype: torch.dtype,
    show: Callable[[int, int], None],
    folder: Path | None,
) -> dict[str, QuantizedTensor]:
    """Codes of matrices in decoder layers, and of the head by the name of the module that owns its weight."""
    decoder = Decoder(model, plan, None, dtype)
    names = {entry.name: index for index, layer in enumerate(decoder.layers) for entry in decoder.entries[layer]}
    if decoder.head is not None:
        names[decoder.head.owner] = len(decoder.layers)
    with tempfile.TemporaryDirectory(dir=folder) as temporary:
        journal = Journal(Path(temporary) / "journal", rows, {})
        round_layers(decoder, rows, journal, show)
        codes = {name: journal.codes(index, name) for name, index in names.items()}
    for name, quantizer in decoder.quantizers.items():
        model.get_submodule(name).weight_quantizer = quantizer
    return codes
