"""Which block type a quantized tensor gets: the first of its profile that holds it exactly, or the one a rule names."""

from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase

from edgerazor.plugins.exporters.gguf.blocks import BLOCK_TYPES, BlockType
from edgerazor.plugins.exporters.gguf.tensor_facts import TensorFacts
from edgerazor.plugins.exporters.params import Profile, TypeRule
from edgerazor.schemas.base import nearest

# Per profile: for ternary codes, for codes of up to four bits (mixed rows too), for wider ones.
PROFILES: dict[Profile, tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]] = {
    "size": (("TQ1_0", "Q2_0", "Q4_0"), ("Q4_0",), ("Q8_0",)),
    "speed_cpu": (("Q2_K", "Q4_0"), ("Q4_K", "Q4_0"), ("Q8_0",)),
    "compatible": (("Q2_K", "Q4_0"), ("Q4_0",), ("Q8_0",)),
}
_GROUP_SIZES = (32, 64, 128, 256)


def choose_type(facts: TensorFacts, profile: Profile, rule: TypeRule | None) -> tuple[BlockType | None, str]:
    """The type of a quantized tensor and "", or None and why there is none."""
    if rule is not None:
        chosen = BLOCK_TYPES[rule.type]
        problem = why_not(chosen, facts)
        return (None, problem) if problem else (chosen, "")
    widest = max(facts.widths or {127: 0})
    candidates = PROFILES[profile][0 if widest == 1 else 1 if widest <= 7 else 2]
    for name in candidates:
        if not why_not(BLOCK_TYPES[name], facts):
            return BLOCK_TYPES[name], ""
    return None, why_not(BLOCK_TYPES[candidates[-1]], facts)


def why_not(block_type: BlockType, facts: TensorFacts) -> str:
    """Why a type cannot hold a tensor exactly, and which types can; "" if it can."""
    columns, name = facts.shape[1], block_type.name
    others = fitting_types(facts)
    smallest = min(known.block for known in BLOCK_TYPES.values())
    if columns % smallest:
        return f"{columns} columns are not a multiple of {smallest}, the smallest GGUF block"
    if facts.group_size % smallest:
        blocks = sorted({known.block for known in BLOCK_TYPES.values()})
        sizes = [str(size) for size in _GROUP_SIZES if columns % size == 0]
        return (
            f"group_size {facts.group_size} fits no GGUF block ({', '.join(map(str, blocks))}); "
            f"train with {_listed(sizes, 'or')}"
        )
    if columns % block_type.block:
        return f"{columns} columns are not a multiple of {block_type.block} ({name}){_would_fit(others)}"
    if facts.group_size % block_type.block:
        return (
            f"type {name} needs {block_type.block}-value groups, this tensor has group_size {facts.group_size}"
            f"{_would_fit(others)}"
        )
    if facts.lowest < block_type.low or facts.highest > block_type.high:
        return (
            f"type {name} holds codes {block_type.low}..{block_type.high}, this tensor has "
            f"{facts.lowest}..{facts.highest}{_would_fit(others)}"
        )
    return ""


def fitting_types(facts: TensorFacts) -> list[str]:
    """Types that hold a tensor exactly, smallest first; Q8_0 only where nothing smaller does."""
    fits = [
        block_type
        for block_type in sorted(BLOCK_TYPES.values(), key=lambda block_type: block_type.bits)
        if facts.shape[1] % block_type.block == 0
        and facts.group_size % block_type.block == 0
        and block_type.low <= facts.lowest
        and facts.highest <= block_type.high
    ]
    small = [block_type.name for block_type in fits if block_type.bits < 8]
    return small or [block_type.name for block_type in fits]


def match_rules(rules: Sequence[TypeRule], tensors: Iterable[TensorFacts]) -> tuple[dict[str, TypeRule], list[str]]:
    """The rule of each quantized tensor that has one, and a line for every glob or rule that takes none."""
    modules = [facts.module for facts in tensors if facts.quantized]
    taken: dict[str, TypeRule] = {}
    problems = []
    for index, rule in enumerate(rules):
        for pattern in rule.match:
            if not any(fnmatchcase(module, pattern) for module in modules):
                known = {f"*.{module.rpartition('.')[2]}" for module in modules if "." in module}
                known |= {module for module in modules if "." not in module}
                problems.append(f"types[{index}] match '{pattern}' fits no tensor{nearest(pattern, known)}")
        mine = [module for module in modules if any(fnmatchcase(module, pattern) for pattern in rule.match)]
        if mine and all(module in taken for module in mine):
            problems.append(f"types[{index}]: all tensors it matches are taken by earlier rules; the first match wins")
        for module in mine:
            taken.setdefault(module, rule)
    return taken, problems


def _would_fit(names: Sequence[str]) -> str:
    return f"; {_listed(names, 'and')} would fit" if names else ""


def _listed(names: Sequence[str], word: str) -> str:
    return f" {word} ".join(filter(None, [", ".join(names[:-1]), names[-1]]))
