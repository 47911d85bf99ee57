"""Rows through the decoder, layer by layer: each layer is rounded on what the rounded layers before it give."""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from edgerazor.calibrate.gptq import calibrated_codes
from edgerazor.core.layers.table import kind_named
from edgerazor.core.module_plan import ModulePlan
from edgerazor.core.plan import Plan
from edgerazor.core.tensor import QuantizedTensor
from edgerazor.errors import PlanError

_LAYER = re.compile(r"^(.*\blayers\.\d+)\.")


def decoder_layers(plan: Plan) -> dict[str, list[ModulePlan]]:
    """`{layer: its quantized linear matrices}` in the order of the model."""
    layers: dict[str, list[ModulePlan]] = {}
    for entry in plan.quantized:
        place = _LAYER.match(entry.name)
        if place and entry.kind == "linear":
            layers.setdefault(place[1], []).append(entry)
    return layers


@torch.no_grad()
def round_layers(
    model: Any, plan: Plan, rows: Iterable[Tensor], show: Callable[[int, int], None]
) -> dict[str, QuantizedTensor]:
    """Codes of every matrix in the decoder layers; the model's weights become their values.

    Args:
        model: float32, with the plan applied.
        plan: of the model.
        rows: token ids `[1, T]`.
        show: called with layers done and layers in all.

    Raises:
        PlanError: a quantizer cannot be calibrated.
    """
    layers = decoder_layers(plan)
    quantizers = {}
    for entry in (entry for entries in layers.values() for entry in entries):
        module = _layer_of(model, entry)
        quantizers[entry.name] = module.weight_quantizer
        module.weight_quantizer = None  # until it is rounded, a matrix computes as it is
    hidden, arguments = _inputs(model, list(layers), rows)
    found: dict[str, QuantizedTensor] = {}
    for index, (name, entries) in enumerate(layers.items()):
        layer = model.get_submodule(name)
        with _moments(model, entries) as moments:
            for states, given in zip(hidden, arguments[name], strict=True):
                layer(states, **given)
        for entry in entries:
            module = _layer_of(model, entry)
            try:
                codes = calibrated_codes(module.weight, moments[entry.name], quantizers[entry.name])
            except PlanError as error:
                raise PlanError(f"{entry.name}: {error}") from error
            module.weight.copy_(codes.dequantize(torch.float32))
            found[entry.name] = codes
        hidden = [_states(layer(states, **given)) for states, given in zip(hidden, arguments[name], strict=True)]
        show(index + 1, len(layers))
    return found


class _EnoughError(Exception):
    """The last layer's arguments are known."""


def _inputs(
    model: Any, layers: list[str], rows: Iterable[Tensor]
) -> tuple[list[Tensor], Mapping[str, list[dict[str, Any]]]]:
    """Hidden states in front of the first layer, and the other arguments of every layer, for each row."""
    hidden: list[Tensor] = []
    arguments: dict[str, list[dict[str, Any]]] = {name: [] for name in layers}

    def keep(name: str, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        states = args[0] if args else kwargs["hidden_states"]
        if name == layers[0]:
            hidden.append(states)
        arguments[name].append({key: value for key, value in kwargs.items() if key != "hidden_states"})
        if name == layers[-1]:
            raise _EnoughError

    hooks = [
        model.get_submodule(name).register_forward_pre_hook(partial(keep, name), with_kwargs=True) for name in layers
    ]
    try:
        for row in rows:
            try:
                model(input_ids=row, use_cache=False)
            except _EnoughError:
                continue
    finally:
        for hook in hooks:
            hook.remove()
    return hidden, arguments


@contextmanager
def _moments(model: Any, entries: list[ModulePlan]) -> Iterator[dict[str, Tensor]]:
    """Sums of x xᵀ over the quantized inputs of each matrix while the block runs; inputs in common are summed once."""
    moments: dict[str, Tensor] = {}
    last: list[Any] = [None, None]

    def add(name: str, module: Any, args: tuple[Any, ...]) -> None:
        if last[0] is not args[0]:
            x = args[0] if module.input_quantizer is None else module.input_quantizer.fake_quantize(args[0])
            flat = x.reshape(-1, x.shape[-1]).float()
            last[:] = [args[0], flat.T @ flat]
        moments[name] = last[1] if name not in moments else moments[name] + last[1]

    hooks = [_layer_of(model, entry).register_forward_pre_hook(partial(add, entry.name)) for entry in entries]
    try:
        yield moments
    finally:
        for hook in hooks:
            hook.remove()


def _layer_of(model: nn.Module, entry: ModulePlan) -> Any:
    return kind_named(entry.kind).find(model, entry.name)


def _states(output: Any) -> Tensor:
    states: Tensor = output[0] if isinstance(output, tuple) else output
    return states
