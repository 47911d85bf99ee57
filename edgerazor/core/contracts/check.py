"""What is asked of a component when it is built: that it subclasses its contract, and that nothing is misspelt."""

from collections.abc import Iterator
from typing import Any

from edgerazor.core.contracts.adapter import ArchitectureAdapter
from edgerazor.core.contracts.exporter import Exporter
from edgerazor.core.contracts.loss import DistillationLoss, WeighsDivergences
from edgerazor.core.contracts.quantizer import Quantizer
from edgerazor.core.contracts.selector import CalibratedSelector, LayerSelector
from edgerazor.errors import PluginError
from edgerazor.schemas.components import Kind

CONTRACTS: dict[Kind, type] = {
    "quantizer": Quantizer,
    "loss": DistillationLoss,
    "selector": LayerSelector,
    "adapter": ArchitectureAdapter,
    "exporter": Exporter,
}
# Contracts with more members, for components that can do more.
CAPABILITIES: dict[Kind, tuple[type, ...]] = {"loss": (WeighsDivergences,), "selector": (CalibratedSelector,)}


def check_class(code: Any, kind: Kind, target: str) -> None:
    """Ask of a class, before it is built, that it is one of its kind and lacks nothing.

    Raises:
        PluginError: it subclasses another class, or an abstract member has no implementation.
    """
    contract = CONTRACTS[kind]
    if not (isinstance(code, type) and issubclass(code, contract)):
        raise PluginError(f"{target} is no {contract.__name__}; subclass edgerazor.{contract.__name__}")
    lacking = sorted(getattr(code, "__abstractmethods__", ()))
    if lacking:
        raise PluginError(f"{target} is not a whole {contract.__name__}: it lacks {', '.join(lacking)}")


def check_members(built: Any, kind: Kind, target: str) -> None:
    """Ask of a component that what the contract declares can be read, and that no other name looks like a mistake.

    Raises:
        PluginError: a declared member is not set; a public member is one edit away from a declared one; or a member
            belongs to a contract that the class does not subclass.
    """
    contracts = [contract for contract in type(built).__mro__ if _is_contract(contract, kind)]
    declared = set().union(*(members(contract) for contract in contracts))
    for name in sorted(declared):
        try:
            getattr(built, name)
        except AttributeError as error:
            raise PluginError(f"{target}: '{name}' of {contracts[0].__name__} cannot be read: {error}") from error
    own = {name for name in (*dir(type(built)), *vars(built)) if not name.startswith("_")} - declared
    for capability in CAPABILITIES.get(kind, ()):
        if not isinstance(built, capability) and (extra := sorted(own & members(capability))):
            wanted = f"edgerazor.{capability.__name__}"
            raise PluginError(f"{target} defines {', '.join(extra)}, which only {wanted} may have; subclass it")
    for name in sorted(own):
        meant = next((known for known in sorted(declared) if is_one_edit_away(name, known)), None)
        if meant:
            raise PluginError(
                f"{target}: the member '{name}' looks like '{meant}' of {contracts[0].__name__}, misspelt; rename it"
            )


def members(contract: type) -> set[str]:
    """Public names that a contract declares, those of its bases included."""
    named: Iterator[str] = (name for base in contract.__mro__ if base is not object for name in _declared(base))
    return {name for name in named if not name.startswith("_")}


def is_one_edit_away(name: str, other: str) -> bool:
    """Whether inserting, deleting or replacing one letter, or swapping two neighbours, makes one name the other."""
    if name == other or abs(len(name) - len(other)) > 1:
        return False
    start = next((index for index, pair in enumerate(zip(name, other, strict=False)) if pair[0] != pair[1]), None)
    if start is None:
        return True
    rest, others = name[start:], other[start:]
    swapped = rest[:2] == others[1::-1] and rest[2:] == others[2:]
    return rest[1:] == others[1:] or rest[1:] == others or rest == others[1:] or swapped


def _declared(base: type) -> set[str]:
    return {*vars(base), *vars(base).get("__annotations__", {})}


def _is_contract(base: type, kind: Kind) -> bool:
    return base is CONTRACTS[kind] or base in CAPABILITIES.get(kind, ())
