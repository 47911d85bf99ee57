"""Put a plan into effect: classes are swapped in place; parameters, names, ties, hooks and `requires_grad` stay."""

from torch import nn

from edgerazor.core.layers.attention import apply_kv_quantizer
from edgerazor.core.layers.experts import FusedMatrices, find_matrix, make_experts
from edgerazor.core.layers.modules import make_embedding, make_linear
from edgerazor.core.layers.quantized_linear import InputSlot
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
    modules = {entry.name: find_matrix(model, entry.name) for entry in plan.modules}
    problems = []
    for entry in plan.modules:
        module = modules[entry.name]
        if module is None or tuple(getattr(module, "weight", entry).shape) != entry.shape:
            problems.append(f"{entry.name}: the plan was made for another model")
        elif "forward" in (module.owner if isinstance(module, FusedMatrices) else module).__dict__:
            problems.append(f"{entry.name}: its forward was replaced (device-map hooks do that); apply the plan first")
    if problems:
        raise PlanError("\n".join(problems))
    if plan.kv_cache is not None or attentions:
        apply_kv_quantizer(model, registry.build(plan.kv_cache) if plan.kv_cache else None, attentions=attentions)
    activation = registry.build(plan.activations) if plan.activations else None
    built: dict[int, object] = {}
    slot = InputSlot()
    for entry in plan.modules:
        if entry.params is None:
            continue
        quantizer = built.setdefault(entry.rule, registry.build(entry.params))
        if entry.kind == "embedding":
            make_embedding(modules[entry.name], quantizer)  # type: ignore[arg-type]
        elif entry.kind == "experts":
            make_experts(modules[entry.name], quantizer, activation)  # type: ignore[arg-type]
        else:
            make_linear(modules[entry.name], quantizer, activation, slot)  # type: ignore[arg-type]
    return model
