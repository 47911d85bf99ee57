"""Rows through the decoder, layer by layer: each layer is rounded on what the rounded layers before it give.

One layer is in memory at a time where the weights are read from their files. Only it computes: the others hand on what
they get, and the model around them makes the arguments, such as masks and rotations, that belong to the layer.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from edgerazor.calibrate.gptq import calibrated_codes
from edgerazor.calibrate.head import Head
from edgerazor.calibrate.journal import Journal
from edgerazor.core.contracts import Quantizer
from edgerazor.core.layers.matrices import join_rows
from edgerazor.core.layers.table import kind_named
from edgerazor.core.module_plan import ModulePlan
from edgerazor.core.plan import Plan
from edgerazor.core.tensor import QuantizedTensor
from edgerazor.errors import PlanError
from edgerazor.models.stored_weights import StoredWeights

_LAYER = re.compile(r"^((.*\blayers)\.\d+)\.")
_WEIGHTS_AT_ONCE = 2**26  # of a head; in float32 a quarter of a gigabyte, several times over


class Decoder:
    """The decoder layers of a model, of which one at a time computes.

    Args:
        model: float32, with the plan applied, whose matrices then compute as they are until they are rounded.
        plan: of the model.
        weights: where the model's parameters are on the meta device.

    Attributes:
        layers: names, in the order of the model.
        head: the output head; None where it is not quantized.
    """

    def __init__(self, model: nn.Module, plan: Plan, weights: StoredWeights | None):
        self.model, self.weights, self.layers = model, weights, decoder_layers(plan, model)
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

    def head_moments(self, rows: Iterable[Tensor]) -> Tensor:
        """Sum of x xᵀ over the inputs of the head, for states behind the last layer; the last norm is between."""
        assert self.head is not None
        moments = torch.zeros(())
        tables = (nn.Embedding,)  # which nothing is looked up in
        norms = [name for name in self._outside() if not isinstance(self._module_of(name), tables)]
        with self._present(norms):
            for states in rows:
                # The layers give what is behind them, whatever the model has made of it in front of them.
                with self._replaced(lambda *_, states=states, **__: states):
                    given = self.owner(inputs_embeds=states, use_cache=False)[0]
                moments = moments + _moments_of(self.head.layer, given)
        return moments

    @contextmanager
    def head_weight(self) -> Iterator[Tensor]:
        """For the block the weight of the head is in memory; of a tied head it is the embedding's."""
        assert self.head is not None
        with self._present([self.head.parameter_name]):
            yield self.model.get_parameter(self.head.parameter_name)

    def matrix(self, entry: ModulePlan) -> Any:
        """The layer of the model that an entry of the plan stands for."""
        return kind_named(entry.kind).find(self.model, entry.name)

    def begin(self, rows: Iterable[Tensor]) -> Iterator[Tensor]:
        """Hidden states `[1, T, hidden]` in front of the first layer, for token ids `[1, T]`."""
        with self._present(self._outside()):
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
            yield partial(self._through, index)

    def _through(self, index: int, states: Tensor) -> Tensor:
        left = max(self._calls[index], 1)

        def run(called: int, given: Tensor, *_: Any, **arguments: Any) -> Tensor:
            nonlocal states, left
            if called != index:
                return given
            output = self._forwards[index](states, **arguments)
            states, left = output[0] if isinstance(output, tuple) else output, left - 1
            if not left:
                raise _EnoughError
            return given

        with self._replaced(run), suppress(_EnoughError):
            self.owner(inputs_embeds=states, use_cache=False)
        return states

    @contextmanager
    def _replaced(self, forward: Callable[..., Tensor]) -> Iterator[None]:
        """For the block every layer calls `forward` with its number and what it is given."""

        def stand_in(index: int, *args: Any, **kwargs: Any) -> Tensor:
            states = args[0] if args else kwargs.pop("hidden_states")
            return forward(index, states, **kwargs)

        modules = [self.model.get_submodule(name) for name in self.layers]
        for index, module in enumerate(modules):
            module.forward = partial(stand_in, index)
        try:
            yield
        finally:
            for module in modules:
                del module.forward

    @contextmanager
    def _present(self, names: Iterable[str]) -> Iterator[None]:
        with ExitStack() as stack:
            for name in names if self.weights is not None else ():
                stack.enter_context(self.weights.present(name))  # type: ignore[union-attr]
            yield


class _EnoughError(Exception):
    """The layer has computed."""


def decoder_layers(plan: Plan, model: nn.Module) -> list[str]:
    """Names of all decoder layers beside one that has quantized matrices; empty if none has."""
    for entry in plan.quantized:
        place = _LAYER.match(entry.name)
        if place and entry.kind == "linear":
            return [f"{place[2]}.{name}" for name, _ in model.get_submodule(place[2]).named_children()]
    return []


def rounded(weight: Tensor, moments: Tensor, quantizer: Quantizer) -> tuple[QuantizedTensor, None]:
    """Codes alone: nothing is kept in the place of the weight."""
    return calibrated_codes(weight, moments, quantizer), None


@torch.no_grad()
def round_layers(
    decoder: Decoder,
    rows: list[Tensor],
    journal: Journal,
    show: Callable[[int, int], None] = lambda done, total: None,
    *,
    find: Callable[[Tensor, Tensor, Quantizer], tuple[QuantizedTensor, Tensor | None]] = rounded,
) -> None:
    """Find the codes of every matrix in the decoder layers, and keep them in the journal; what it holds is not redone.

    Args:
        decoder: of the model.
        rows: token ids `[1, T]`.
        journal: of these rows.
        show: called with layers done and layers in all; the head counts as one.
        find: gives codes and, unless it is None, what the weight becomes once its layer is done, for a weight, the
            second moments of its inputs and its quantizer.

    Raises:
        PlanError: a quantizer cannot be calibrated.
    """
    if journal.done is None:
        journal.states(0).write(decoder.begin(rows))
    else:
        next(iter(decoder.begin(rows[:1])))  # counts how often the model runs each layer
    layers = len(decoder.layers)
    total = layers + (decoder.head is not None)
    for index in range(journal.done or 0, layers):
        show(index, total)
        states, entries = journal.states(index), decoder.entries[decoder.layers[index]]
        with decoder.layer(index) as through:
            with _moments(decoder, entries) as moments:
                for row in states if entries else ():
                    through(row)
            found = {entry.name: _found(decoder, entry, moments[entry.name], find) for entry in entries}
            journal.states(index + 1).write(map(through, states) if index + 1 < total else [])
            for entry in entries:
                if (kept := found[entry.name][1]) is not None:
                    decoder.matrix(entry).weight.copy_(kept)
        journal.finish(index, {name: codes for name, (codes, _) in found.items()})
    if decoder.head is not None and journal.done == layers:
        show(layers, total)
        _round_head(decoder, decoder.head, journal, find)
    show(total, total)


def _round_head(decoder: Decoder, head: Head, journal: Journal, find: Callable[..., Any]) -> None:
    """As one layer more, whose codes are kept by the name of the weight's owner."""
    last = len(decoder.layers)
    moments = decoder.head_moments(journal.states(last))
    with decoder.head_weight() as weight:
        try:
            codes, kept = _found_in_parts(weight, moments, head.quantizer, find)
        except PlanError as error:
            raise PlanError(f"{head.owner}: {error}") from error
        if kept is not None:
            weight.copy_(kept)
    journal.states(last + 1).write([])
    journal.finish(last, {head.owner: codes})


def _found_in_parts(
    weight: Tensor, moments: Tensor, quantizer: Quantizer, find: Callable[..., Any]
) -> tuple[QuantizedTensor, Tensor | None]:
    """What `find` gives for the whole, some rows at a time where they are independent: a head has very many."""
    rows_at_once = max(_WEIGHTS_AT_ONCE // weight.shape[1], 1)
    if not quantizer.rows_independent or len(weight) <= rows_at_once:
        return find(weight, moments, quantizer)  # type: ignore[no-any-return]
    parts = [find(rows, moments, quantizer) for rows in weight.split(rows_at_once)]
    kept = [values for _, values in parts if values is not None]
    return join_rows([codes for codes, _ in parts]), torch.cat(kept) if kept else None


def _found(decoder: Decoder, entry: ModulePlan, moments: Tensor, find: Callable[..., Any]) -> Any:
    """What is found for a matrix, which then computes with the values of its codes."""
    module = decoder.matrix(entry)
    try:
        codes, kept = find(module.weight, moments, decoder.quantizers[entry.name])
    except PlanError as error:
        raise PlanError(f"{entry.name}: {error}") from error
    module.weight.copy_(codes.dequantize(torch.float32))
    return codes, kept


@contextmanager
def _moments(decoder: Decoder, entries: list[ModulePlan]) -> Iterator[dict[str, Tensor]]:
    """Sums of x xᵀ over the quantized inputs of each matrix while the block runs; inputs in common are summed once."""
    moments: dict[str, Tensor] = {}
    last: list[Any] = [None, None]

    def add(name: str, module: Any, args: tuple[Any, ...]) -> None:
        if last[0] is not args[0]:
            last[:] = [args[0], _moments_of(module, args[0])]
        moments[name] = last[1] if name not in moments else moments[name] + last[1]

    hooks = [decoder.matrix(entry).register_forward_pre_hook(partial(add, entry.name)) for entry in entries]
    try:
        yield moments
    finally:
        for hook in hooks:
            hook.remove()


def _moments_of(layer: Any, x: Tensor) -> Tensor:
    """Sum of x xᵀ over what a linear layer's weight is multiplied by, float32 `[columns, columns]`."""
    rows = kind_named("linear").product_rows(layer, x)
    assert rows is not None
    return rows.float().T @ rows.float()
