"""Put a plan into effect: classes are swapped in place; parameters, names, ties, hooks and `requires_grad` stay."""

from typing import Any

from torch import nn

from edgerazor.core.layers.attention import apply_kv_quantizer, attention_modules
from edgerazor.core.layers.merging import refuse_merging
from edgerazor.core.layers.quantized_linear import InputSlot
from edgerazor.core.layers.table import kind_named
from edgerazor.core.plan import Plan
from edgerazor.core.registry import Registry
from edgerazor.errors import PlanError


def apply_plan(model: nn.Module, plan: Plan, *, registry: Registry, attentions: bool = False) -> nn.Module:
    """Turn a 16-bit model into a quantization-aware one, in place.

    Args:
        model: the model the plan was built for, with weights.
        plan: from `build_plan`.
        registry: builds the quantizers; one object serves all modules of a rule.
        attentions: True where a loss reads attention probabilities.

    Raises:
        PlanError: a module is missing, has another shape, or has had its `forward` replaced, so that a new class would
            have no effect. Nothing has been changed then.
    """
    layers = _checked_layers(model, plan)
    refuse_merging()
    if plan.kv_cache is None and attentions and not attention_modules(model):
        model.set_attn_implementation("eager")  # type: ignore[operator]
    elif plan.kv_cache is not None or attentions:
        apply_kv_quantizer(model, registry.build(plan.kv_cache) if plan.kv_cache else None, attentions=attentions)
    activation = registry.build(plan.activations) if plan.activations else None
    planned = [(entry, entry.params) for entry in plan.modules if entry.params is not None]
    # Rows that no group divides have a scale of their own, so a rule may have a second quantizer.
    distinct = {(entry.rule, params.group_size): params for entry, params in planned}
    built = {key: registry.build(params) for key, params in distinct.items()}
    slot = InputSlot()
    for entry, params in planned:
        kind, layer, quantizer = kind_named(entry.kind), layers[entry.name], built[entry.rule, params.group_size]
        if entry.matrices != kind.matrices(layer):  # q, k and v in one, of which the layer itself does not know
            quantizer = entry.matrices.quantizer(quantizer)
        kind.make_trainable(layer, quantizer, activation, slot)
    return model


def _checked_layers(model: nn.Module, plan: Plan) -> dict[str, nn.Module]:
    layers: dict[str, nn.Module] = {}
    problems = []
    for entry in plan.modules:
        layer: Any = kind_named(entry.kind).find(model, entry.name)
        if layer is None or tuple(layer.weight.shape) != entry.shape:
            problems.append(f"{entry.name}: the plan was made for another model")
        elif "forward" in kind_named(entry.kind).owner(layer).__dict__:
            problems.append(f"{entry.name}: its forward was replaced (device-map hooks do that); apply the plan first")
        else:
            layers[entry.name] = layer
    if problems:
        raise PlanError("\n".join(problems))
    return layers
