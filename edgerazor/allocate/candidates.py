"""What an allocation chooses among: quantizers as the user names them, and the matrices that must agree."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from edgerazor.core.contracts import ArchitectureAdapter
from edgerazor.core.module_plan import ModulePlan
from edgerazor.core.plan import Plan
from edgerazor.core.registry import Registry
from edgerazor.errors import PlanError, RecipeError
from edgerazor.schemas.allocation import CANDIDATES, candidate_values
from edgerazor.schemas.components import QuantizerParams, unknown_component
from edgerazor.schemas.quantization import QuantizationSection

_TIED_ROLES = {"q": "attention input", "k": "attention input", "v": "attention input", "gate": "gate", "up": "gate"}
MOST_NAMES = 3


@dataclass(frozen=True)
class Unit:
    """Matrices that get the same candidate."""

    modules: tuple[ModulePlan, ...]

    @property
    def name(self) -> str:
        """Name of the only member, or what members share with the last parts in braces."""
        names = [module.name for module in self.modules]
        if len(names) == 1:
            return names[0]
        stem = names[0].rpartition(".")[0]
        if any(name.rpartition(".")[0] != stem for name in names):
            return ", ".join(names)
        return f"{stem}.{{{','.join(name.rpartition('.')[2] for name in names)}}}"

    @property
    def weights(self) -> int:
        """Number of weights, those shared with another module counted once."""
        return sum(module.weights for module in self.modules if not module.tied_to)


def body_rules(section: QuantizationSection) -> list[int]:
    """Rules whose modules are allocated: those that mix widths (`sqmp`), and the rule for all that is left (`*`).

    Raises:
        RecipeError: there is none, or it says nothing about group sizes because it leaves modules at 16 bit.
    """
    chosen = [
        index
        for index, rule in enumerate(section.weights)
        if "*" in rule.match or (rule.quantizer is not None and rule.quantizer.name == "sqmp")
    ]
    if not chosen:
        raise RecipeError(
            "quantization.weights: no rule says which matrices to allocate; expected one with quantizer sqmp, or one "
            "that matches '*'"
        )
    for index in chosen:
        if section.weights[index].quantizer is None:
            raise RecipeError(
                f"quantization.weights[{index}].quantizer: is null, so there is nothing to allocate; expected a "
                "quantizer with the group size that its matrices shall have"
            )
    return chosen


def tie_modules(plan: Plan, rules: Sequence[int], *, adapter: ArchitectureAdapter, free: bool) -> list[Unit]:
    """The units of the modules that these rules took, in model order.

    Engines that fuse matrices need one width for q, k and v of a layer, and for gate and up; `free` leaves only
    modules that share one weight together.
    """
    keys: dict[str, Any] = {}
    members: dict[Any, list[ModulePlan]] = {}
    for module in plan.modules:
        if module.rule not in rules:
            continue
        role = adapter.role(module.parameter_name)
        group = None if free else _TIED_ROLES.get(role.kind)
        key = keys.get(module.tied_to or "", (role.layer, group) if group and role.layer is not None else module.name)
        keys[module.name] = key
        members.setdefault(key, []).append(module)
    return [Unit(tuple(modules)) for modules in members.values()]


def unreached_note(units: Sequence[Unit]) -> list[str]:
    """One line on units without a sensitivity, which keep the quantizers of their rules; none if there are none."""
    names = [module.name for unit in units for module in unit.modules]
    shown = ", ".join(names[:MOST_NAMES]) + (", …" if len(names) > MOST_NAMES else "")
    text = f"no gradient of the texts reaches {len(names)} matrices, which keep what their rules say: {shown}"
    return [text] if names else []


def candidate_quantizer(text: str, body: QuantizerParams, *, registry: Registry) -> QuantizerParams:
    """The quantizer that a candidate means for a matrix of a body rule.

    Args:
        text: `ternary`, `int4` (2 to 8), `1/8` (sqmp of that ratio), or a quantizer as a recipe writes it, such as
            `{name: int, bits: 2, symmetric: false}`.
        body: the rule's own quantizer; group size and the like are taken from it where the candidate is silent.
        registry: loaded plugins.

    Raises:
        RecipeError: the text means no quantizer, or its parameters are refused.
    """
    values = candidate_values(text)
    if values is None:
        raise RecipeError(f"candidate {text}: expected {CANDIDATES}")
    declared = registry.declared("quantizer", str(values["name"]))
    if declared is None:
        raise RecipeError(f"candidate {text}: {unknown_component(registry, 'quantizer', str(values['name']))}")
    shared = ["group_size", "scale_dtype", "scale_multiplier", "high_bits"]
    if (values["name"], values.get("bits")) == (body.name, getattr(body, "bits", None)):
        shared += ["symmetric", "scale"]
    inherited = {key: getattr(body, key) for key in shared if key in declared.model_fields and hasattr(body, key)}
    try:
        built: QuantizerParams = registry.params("quantizer", **{**inherited, **values})
    except ValidationError as error:
        raise RecipeError([f"candidate {text}: {line['msg']}" for line in error.errors()]) from error
    return built


def check_fits(quantizer: Any, shape: tuple[int, int]) -> str | None:
    """Why a quantizer does not fit a matrix; None if it does."""
    try:
        quantizer.check_shape(shape)
    except PlanError as error:
        return str(error)
    return None
