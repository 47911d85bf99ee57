"""What the matrices of a decoder layer are given, as states go through it."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor

from edgerazor.calibrate.decoder import Decoder, EnoughError, product_rows
from edgerazor.calibrate.hooks import removed, replaced_forward
from edgerazor.calibrate.inputs import Inputs, sharing_inputs
from edgerazor.calibrate.recorded_outputs import can_be_recorded
from edgerazor.calibrate.residual import SeenSums
from edgerazor.core.module_plan import ModulePlan


@dataclass(frozen=True)
class InputSet:
    """Matrices of a layer that are given the same tensor.

    Attributes:
        entries: in the order of their use.
        added: there is one, and the model adds its output to something, its residual stream.
    """

    entries: tuple[ModulePlan, ...]
    added: bool


class LayerInputs:
    """Inputs of the matrices of one layer.

    Args:
        decoder: its layer is in memory.
        index: of the layer.
        states: `[1, T, hidden]` of some row, which tell what shares an input.

    Attributes:
        sets: matrices in the order of their use, those that are given the same tensor together.
        runs_once: in a row; what a layer gives the first time is what it is given the second time.
    """

    def __init__(self, decoder: Decoder, index: int, states: Tensor):
        self.runs_once = decoder.calls(index) == 1
        self._decoder, self._index, self._name = decoder, index, decoder.layers[index]
        with self._noting_parts() as self._parts:
            self.sets = self._find_sets(states)

    def matrices(self, together: InputSet) -> list[Any]:
        """The layers of a set."""
        return [self._decoder.matrix(entry) for entry in together.entries]

    def finished(self, place: int) -> list[Any]:
        """Modules that give all that comes of a set's matrices, when it and those before it are rounded.

        The outermost parts of the layer that use no other matrix, or the matrices themselves. A part has to run once in
        a row, and to do nothing but what it gives.
        """
        done = {entry.name for together in self.sets[: place + 1] for entry in together.entries}
        whole = [part for part, used in self._parts.items() if used <= done]
        found = {}
        for entry in self.sets[place].entries:
            outermost = next((part for part in whole if entry.name in self._parts[part]), None)
            matrix = self._decoder.matrix(entry)
            found[outermost or entry.name] = self._decoder.model.get_submodule(outermost) if outermost else matrix
        return list(found.values())

    def through(self, states: Tensor) -> Tensor:
        """States behind the layer."""
        return self._decoder.through(self._index, states)

    def of(self, wanted: InputSet, states: Tensor) -> Inputs:
        """Of one set; the layer computes no further than that."""
        # What an added matrix itself gives is not asked for, only what it is added to.
        idle = self.matrices(wanted) if wanted.added and self.runs_once else []
        with replaced_forward(idle, lambda place: partial(_zeros, idle[place])):
            (inputs,), _ = self._seen([wanted], states, stop=True)
        return inputs

    def of_all(self, states: Tensor) -> tuple[list[Inputs], Tensor]:
        """Of every set, and what the layer makes of the states."""
        return self._seen(self.sets, states, stop=False)

    @contextmanager
    def _noting_parts(self) -> Iterator[dict[str, set[str]]]:
        """Parts of the layer that run once in the block, outer ones first, with the names of the matrices of each.

        Matrices that it uses, and its own that it does not use. Only parts whose outputs can be recorded are there.
        """
        matrices = {entry.name: self._decoder.matrix(entry) for entry in self._decoder.entries[self._name]}
        found: dict[str, set[str]] = {}
        running: list[str] = []
        left_out: set[str] = set()

        def begin(name: str) -> None:
            if name in found:
                left_out.add(name)
            found.setdefault(name, {matrix for matrix in matrices if matrix.startswith(f"{name}.")})
            running.append(name)

        def end(name: str, output: Any) -> None:
            running.remove(name)
            if not can_be_recorded(output):
                left_out.add(name)

        def use(matrix: str) -> None:
            for name in running:
                found[name].add(matrix)

        hooks = [
            layer.register_forward_pre_hook(lambda *_, matrix=matrix: use(matrix)) for matrix, layer in matrices.items()
        ]
        for inner, part in self._decoder.model.get_submodule(self._name).named_modules():
            name = f"{self._name}.{inner}"
            if inner and name not in matrices:
                hooks.append(part.register_forward_pre_hook(lambda *_, name=name: begin(name)))
                hooks.append(part.register_forward_hook(lambda _, __, output, name=name: end(name, output)))
        with removed(hooks):
            yield found
        for name in left_out:
            del found[name]

    def _find_sets(self, states: Tensor) -> list[InputSet]:
        used: list[tuple[ModulePlan, Tensor]] = []
        outputs: list[tuple[ModulePlan, Tensor]] = []
        added: set[str] = set()

        def see_sum(*terms: Tensor) -> None:
            added.update(entry.name for entry, output in outputs if any(term is output for term in terms))

        hooks = []
        for entry in self._decoder.entries[self._name]:
            matrix = self._decoder.matrix(entry)
            hooks += [
                matrix.register_forward_pre_hook(lambda _, args, entry=entry: used.append((entry, args[0]))),
                matrix.register_forward_hook(lambda _, __, output, entry=entry: outputs.append((entry, output))),
            ]
        with removed(hooks), SeenSums(see_sum):
            self._decoder.through(self._index, states)
        of_first_call = used[: len(used) // self._decoder.calls(self._index)]
        return [
            InputSet(tuple(entries), len(entries) == 1 and entries[0].name in added)
            for entries in sharing_inputs(of_first_call)
        ]

    def _seen(self, sets: Sequence[InputSet], states: Tensor, *, stop: bool) -> tuple[list[Inputs], Tensor]:
        calls = self._decoder.calls(self._index)
        watches = [_Watch(self._decoder.matrix(together.entries[0]), together.added) for together in sets]

        def see_sum(first: Tensor, second: Tensor) -> None:
            for watch in watches:
                watch.see_sum(first, second)
            stop_if_enough()

        def see_input(watch: _Watch, args: tuple[Any, ...]) -> None:
            watch.see_input(args[0])
            stop_if_enough()

        def stop_if_enough() -> None:
            if stop and all(watch.saw(calls) for watch in watches):
                raise EnoughError

        hooks = []
        for watch in watches:
            hooks += [
                watch.layer.register_forward_pre_hook(lambda _, args, watch=watch: see_input(watch, args)),
                watch.layer.register_forward_hook(lambda _, __, made, watch=watch: watch.see_output(made)),
            ]
        sums = SeenSums(see_sum) if any(watch.added for watch in watches) else nullcontext()
        with removed(hooks), sums:
            output = self._decoder.through(self._index, states)
        return [watch.inputs() for watch in watches], output


@dataclass
class _Watch:
    """One matrix, what it is given, and what its output is added to where that is asked for."""

    layer: Any
    added: bool
    rows: list[Tensor] = field(default_factory=list)
    residuals: list[Tensor] = field(default_factory=list)
    output: Tensor | None = None

    def see_input(self, x: Tensor) -> None:
        self.rows.append(product_rows(self.layer, x))

    def see_output(self, output: Tensor) -> None:
        self.output = output

    def see_sum(self, first: Tensor, second: Tensor) -> None:
        if self.added and self.output is not None and (first is self.output or second is self.output):
            self.residuals.append((second if first is self.output else first).flatten(0, -2))

    def saw(self, calls: int) -> bool:
        return len(self.residuals if self.added else self.rows) == calls

    def inputs(self) -> Inputs:
        return Inputs(torch.cat(self.rows), torch.cat(self.residuals) if self.residuals else None)


def _zeros(matrix: Any, x: Tensor) -> Tensor:
    return x.new_zeros(*x.shape[:-1], len(matrix.weight))
