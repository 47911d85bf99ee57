"""Rows through the decoder, layer by layer.

One layer is in memory at a time where the weights are read from their files. Only it computes: the others hand on what
they get, and the model around them makes the arguments, such as masks and rotations, that belong to the layer.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from edgerazor.calibrate.head import Head
from edgerazor.calibrate.hooks import replaced_forward
from edgerazor.calibrate.inputs import InputMoments, Inputs
from edgerazor.core.layers.table import kind_named
from edgerazor.core.module_plan import ModulePlan
from edgerazor.core.plan import Plan
from edgerazor.kernels.processor import Processor
from edgerazor.models.stored_weights import StoredWeights

_LAYER = re.compile(r"^((.*\blayers)\.\d+)\.")


class Decoder:
    """The decoder layers of a model, of which one at a time computes.

    Args:
        model: float32, with the plan applied, whose matrices then compute as they are until they are rounded.
        plan: of the model.
        weights: where the model's parameters are on the meta device.
        dtype: of the products of a layer that states go through.

    Attributes:
        layers: names, in the order of the model.
        head: the output head; None where it is not quantized.
    """

    def __init__(self, model: nn.Module, plan: Plan, weights: StoredWeights | None, dtype: torch.dtype = torch.float32):
        self.model, self.weights, self.layers, self.dtype = model, weights, decoder_layers(plan, model), dtype
        self.head = Head.of(model, plan)
        container = self.layers[0].rpartition(".")[0]
        self.owner = model.get_submodule(container.rpartition(".")[0])
        self.entries: dict[str, list[ModulePlan]] = {name: [] for name in self.layers}
        self.quantizers: dict[str, Any] = {}
        for entry in plan.quantized:
            place = _LAYER.match(entry.name)
            if place and place[1] in self.entries and entry.kind == "linear":
                self.entries[place[1]].append(entry)
                self.quantizers[entry.name] = self.matrix(entry).weight_quantizer
                self.matrix(entry).weight_quantizer = None
        self._forwards = [model.get_submodule(name).forward for name in self.layers]
        self._calls = Counter[int]()

    def head_moments(self, rows: Iterable[tuple[Tensor, Tensor]]) -> InputMoments:
        """Of the head's inputs, for states of the rounded and the 16-bit layers; the last norm is between."""
        assert self.head is not None
        moments = InputMoments()
        # Without embeddings: the model is given states here, and looks nothing up.
        norms = [name for name in self._outside() if not kind_named("embedding").matches(self._module_of(name))]
        with self._present(norms):
            for both in rows:
                moments.add(*(Inputs(product_rows(self.head.layer, self._normed(states))) for states in both))
        return moments

    def _normed(self, states: Tensor) -> Tensor:
        """States behind the last layer as the model hands them to its head."""
        # The layers give what is behind them, whatever the model has made of it in front of them.
        with self._replaced(lambda *_, **__: states):
            return self.owner(inputs_embeds=states, use_cache=False)[0]  # type: ignore[no-any-return]

    @contextmanager
    def head_weight(self) -> Iterator[Tensor]:
        """For the block the weight of the head is in memory; of a tied head it is the embedding's."""
        assert self.head is not None
        with self._present([self.head.parameter_name]):
            yield self.model.get_parameter(self.head.parameter_name)

    def matrix(self, entry: ModulePlan) -> Any:
        """The layer of the model that an entry of the plan stands for."""
        return kind_named(entry.kind).find(self.model, entry.name)

    def begin(self, rows: Iterable[Tensor], embedding: Callable[[Tensor], Tensor] | None = None) -> Iterator[Tensor]:
        """Hidden states `[1, T, hidden]` in front of the first layer, for token ids `[1, T]`.

        Args:
            rows: token ids.
            embedding: makes of its weight what is looked up; None rounds it by the plan.
        """
        with self._present(self._outside()), self._embedding_as(embedding):
            for row in rows:
                first: list[Tensor] = []
                self._calls = Counter()

                def hand_on(index: int, states: Tensor, *_: Any, first: list[Tensor] = first, **__: Any) -> Tensor:
                    self._calls[index] += 1
                    first.append(states)
                    return states

                with self._replaced(hand_on):
                    self.owner(input_ids=row, use_cache=False)
                yield first[0]

    @contextmanager
    def _embedding_as(self, values: Callable[[Tensor], Tensor] | None) -> Iterator[None]:
        """For the block the input embedding looks up these values of its weight; None changes nothing."""
        model: Any = self.model
        layer = model.get_input_embeddings()
        quantizer = kind_named("embedding").quantizer(layer)
        if values is None or quantizer is None:
            yield
            return
        weight = layer.weight.data
        layer.weight_quantizer, layer.weight.data = None, values(weight)
        try:
            yield
        finally:
            layer.weight_quantizer, layer.weight.data = quantizer, weight

    def _module_of(self, parameter_name: str) -> nn.Module:
        return self.model.get_submodule(parameter_name.rpartition(".")[0])

    def _outside(self) -> list[str]:
        """Parameters around the layers: embeddings and norms."""
        inside = tuple(f"{name}." for name in self.layers)
        prefix = self.layers[0].rpartition(".")[0].rpartition(".")[0]
        names = [name for name, _ in self.model.named_parameters()]
        return [name for name in names if name.startswith(prefix) and not name.startswith(inside)]

    @contextmanager
    def layer(self, index: int) -> Iterator[Callable[[Tensor], Tensor]]:
        """For the block the layer's weights are in memory, and what is given takes states through it.

        A layer that the model runs several times in a row is run as often.
        """
        name = self.layers[index]
        module = self.model.get_submodule(name)
        with self._present([f"{name}.{inner}" for inner, _ in module.named_parameters()]):
            yield partial(self.through, index)

    def calls(self, index: int) -> int:
        """How often the model runs a layer in a row, as `begin` has seen it."""
        return max(self._calls[index], 1)

    def through(self, index: int, states: Tensor) -> Tensor:
        """Float32 states `[1, T, hidden]` behind a layer whose weights are in memory; as given if a hook stops it."""
        left = self.calls(index)

        def run(called: int, given: Tensor, *_: Any, **arguments: Any) -> Tensor:
            nonlocal states, left
            if called != index:
                return given
            output = self._forwards[index](states, **arguments)
            states, left = output[0] if isinstance(output, tuple) else output, left - 1
            if not left:
                raise EnoughError
            return given

        with self._replaced(run), suppress(EnoughError), self._arithmetic():
            self.owner(inputs_embeds=states, use_cache=False)
        return states.float()

    def _arithmetic(self) -> AbstractContextManager[Any]:
        return torch.autocast("cpu", self.dtype, enabled=self.dtype != torch.float32)

    @contextmanager
    def _replaced(self, forward: Callable[..., Tensor]) -> Iterator[None]:
        """For the block every layer calls `forward` with its number and what it is given."""

        def stand_in(index: int, *args: Any, **kwargs: Any) -> Tensor:
            states = args[0] if args else kwargs.pop("hidden_states")
            return forward(index, states, **kwargs)

        modules = [self.model.get_submodule(name) for name in self.layers]
        with replaced_forward(modules, lambda index: partial(stand_in, index)):
            yield

    @contextmanager
    def _present(self, names: Iterable[str]) -> Iterator[None]:
        with ExitStack() as stack:
            for name in names if self.weights is not None else ():
                stack.enter_context(self.weights.present(name))  # type: ignore[union-attr]
            yield


class EnoughError(Exception):
    """What was asked of the model is there."""


def layer_dtype(processor: Processor) -> torch.dtype:
    """In what states go through layers: what a product loses in bfloat16 is nothing beside what rounding does."""
    return torch.bfloat16 if processor.bfloat16 else torch.float32


def decoder_layers(plan: Plan, model: nn.Module) -> list[str]:
    """Names of all decoder layers beside one that has quantized matrices; empty if none has."""
    for entry in plan.quantized:
        place = _LAYER.match(entry.name)
        if place and entry.kind == "linear":
            return [f"{place[2]}.{name}" for name, _ in model.get_submodule(place[2]).named_children()]
    return []


def product_rows(layer: Any, x: Tensor) -> Tensor:
    """What a linear layer's weight is multiplied by, `[rows, columns]`."""
    rows = kind_named("linear").product_rows(layer, x)
    assert rows is not None
    return rows
