"""Calibrated rounding of image classifiers: matrix after matrix, in the order in which the model uses them.

Such a model has no row of layers that hand one state on, and is small enough to be in memory whole: it is run once more
for every set of matrices that share an input.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any

import torch
from torch import Tensor

from edgerazor.calibrate.gptq import codes_of
from edgerazor.calibrate.inputs import InputMoments, Inputs, sharing_inputs
from edgerazor.calibrate.two_weights import TwoWeights
from edgerazor.core.layers.kind import LayerKind
from edgerazor.core.layers.table import kind_named
from edgerazor.core.plan import Plan
from edgerazor.core.tensor import QuantizedTensor
from edgerazor.models.source import ModelSource
from edgerazor.schemas.data import DataSection

_AT_ONCE = 32


def calibration_pictures(source: ModelSource, data: DataSection, samples: int) -> list[Tensor]:
    """Pictures `[1, channels, height, width]` as the model is given them, in the order of the data's seed.

    Args:
        source: of the model.
        data: of the task image_classification; held-out pictures are left out, and nothing is drawn at random.
        samples: at most so many.

    Raises:
        DataError: they cannot be read.
    """
    from edgerazor.data.images import Classes, load_images

    facts, classes = source.adapter.facts(source.config), Classes(source.config.label2id or {})
    assert facts.image is not None
    as_they_are = data.images.model_copy(update={"crop": None, "flip": False, "mixup": None})
    section = data.model_copy(update={"images": as_they_are})
    rows = load_images(section, source.image_processor, classes=classes, channels=facts.image.channels).train
    return [rows[index]["pixel_values"].unsqueeze(0) for index in range(min(samples, len(rows)))]


@torch.no_grad()
def round_classifier(
    model: Any,
    plan: Plan,
    pictures: Sequence[Tensor],
    show: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, QuantizedTensor]:
    """Codes of every quantized matrix, each found on inputs that the rounded matrices before it give.

    What a matrix is to give for them is what the 16-bit model gives, as far as its weights can make up for errors.

    Convolutions in groups are left to plain rounding: every group has inputs of its own.

    Args:
        model: float32, with the plan applied; afterwards its weights are the values of the codes.
        plan: of the model.
        pictures: `[1, channels, height, width]` each.
        show: called with matrices done and matrices in all.

    Returns:
        `{module: codes}`.

    Raises:
        PlanError: a quantizer cannot be calibrated.
    """
    walk = _Walk(model, plan, pictures)
    codes: dict[str, QuantizedTensor] = {}
    with walk.unquantized_weights():
        sets = walk.sets()
        total = sum(map(len, sets))
        for names in sets:
            show(len(codes), total)
            moments = walk.moments(names[0])
            for name in names:
                codes[name] = walk.round(name, moments)
        show(total, total)
    return codes


class _EnoughError(Exception):
    """The inputs that were asked for are there."""


class _Walk:
    """Runs a model as far as a matrix whose inputs are wanted.

    Args:
        model, plan, pictures: as for `round_classifier`.

    Attributes:
        layers: quantized layers by name.
        weights: of these.
    """

    def __init__(self, model: Any, plan: Plan, pictures: Sequence[Tensor]):
        self.model = model.eval()
        self.kinds: dict[str, LayerKind] = {entry.name: kind_named(entry.kind) for entry in plan.quantized}
        self.layers: dict[str, Any] = {name: kind.find(model, name) for name, kind in self.kinds.items()}
        self.weights = TwoWeights(self.layers)
        self.quantizers = {name: kind.quantizer(self.layers[name]) for name, kind in self.kinds.items()}
        self.batches = [torch.cat(list(pictures[at : at + _AT_ONCE])) for at in range(0, len(pictures), _AT_ONCE)]

    @contextmanager
    def unquantized_weights(self) -> Iterator[None]:
        """For the block layers compute with the weights that they hold, on quantized inputs."""
        for layer in self.layers.values():
            layer.weight_quantizer = None
        try:
            yield
        finally:
            for name, layer in self.layers.items():
                layer.weight_quantizer = self.quantizers[name]

    def sets(self) -> list[list[str]]:
        """Names of matrices in the order of their use, those that are given the same input together."""
        used: list[tuple[str, Tensor]] = []
        self._run(self.batches[:1], list(self.layers), lambda name, x: used.append((name, x)))
        return sharing_inputs(
            (name, x) for name, x in used if self.kinds[name].product_rows(self.layers[name], x[:1]) is not None
        )

    def moments(self, name: str) -> InputMoments:
        """Of the inputs that a matrix has in the model as far as it is rounded, and in the 16-bit one."""
        moments = InputMoments()
        for batch in self.batches:
            with self.weights.as_they_were():
                wanted = self._inputs(name, batch)
            moments.add(self._inputs(name, batch), wanted)
        return moments

    def round(self, name: str, moments: InputMoments) -> QuantizedTensor:
        """Codes of a matrix, which then computes with their values."""
        quantizer = self.quantizers[name]
        assert quantizer is not None
        weight = self.kinds[name].matrices(self.layers[name]).stack(self.weights.unrounded[name])
        codes = codes_of(name, moments.matched(weight), moments.own, quantizer)
        self.weights.put(name, codes.dequantize(torch.float32))
        return codes

    def _inputs(self, name: str, batch: Tensor) -> Inputs:
        """Inputs of a matrix for some pictures."""
        seen: list[Tensor] = []

        def see(_: str, x: Tensor) -> None:
            rows = self.kinds[name].product_rows(self.layers[name], x)
            assert rows is not None
            seen.append(rows)
            raise _EnoughError

        self._run([batch], [name], see)
        return Inputs(seen[0])

    def _run(self, batches: Sequence[Tensor], names: Sequence[str], see: Callable[[str, Tensor], None]) -> None:
        def hook(name: str, module: Any, args: tuple[Any, ...]) -> None:
            see(name, args[0])

        hooks = [self.layers[name].register_forward_pre_hook(partial(hook, name)) for name in names]
        try:
            for batch in batches:
                with suppress(_EnoughError):
                    self.model(pixel_values=batch)
        finally:
            for registered in hooks:
                registered.remove()
