"""Group sizes that fit: a row (METHOD 1.2, rule 6), and a model, where the largest usual size takes the place of a wish
that does not divide every row.
"""

from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

from edgerazor.core.layers.kind import SMALLEST_GROUP, LayerKind
from edgerazor.core.layers.table import kind_of
from edgerazor.errors import PlanError
from edgerazor.schemas.components import QuantizerParams
from edgerazor.schemas.quantization import QuantizationSection

# Engines take these: blocks of GGUF and of ONNX Runtime are multiples of 32, up to 256.
USUAL_SIZES = (256, 128, 64, 32)


def fitting_group_sizes(columns: int) -> list[int]:
    """Divisors that are multiples of 32, largest first; if there are none, the largest divisors up to 256."""
    divisors = [size for size in range(columns, 0, -1) if columns % size == 0]
    return [size for size in divisors if size % 32 == 0] or [size for size in divisors if size <= 256][:8]


def check_group_size(columns: int, group_size: int | None) -> None:
    """Raise PlanError if groups of `group_size` would cross the end of a row of `columns`."""
    if group_size is not None and columns % group_size != 0:
        fitting = ", ".join(str(size) for size in fitting_group_sizes(columns))
        raise PlanError(f"{columns} columns are not a multiple of group_size {group_size}; {fitting} would fit")


class Columns(NamedTuple):
    """Widths that group sizes divide: of the matrices that a rule takes, and of their inputs that are quantized."""

    weights: set[int]
    inputs: set[int]


def columns_by_rule(layers: Mapping[str, Any], rule_of: Mapping[str, int]) -> dict[int, Columns]:
    """`{index of a weight rule: columns}`, from layers and the rules that take them, both by name."""
    found: dict[int, Columns] = {}
    for name, rule in rule_of.items():
        kind = kind_of(layers[name])
        if kind is not None:
            columns = found.setdefault(rule, Columns(set(), set()))
            columns.weights.update(_to_divide(kind, kind.matrices(layers[name]).columns))
            if kind.quantizes_inputs:
                columns.inputs.update(_to_divide(kind, kind.input_columns(layers[name])))
    return found


def _to_divide(kind: LayerKind, width: int) -> set[int]:
    """A width that group sizes have to divide; none where rows without a usual divisor have one scale."""
    return set() if kind.rows_may_be_whole and width % SMALLEST_GROUP else {width}


def fit_group_sizes(
    section: QuantizationSection, columns: Mapping[int, Columns], heads: Collection[int]
) -> tuple[QuantizationSection, list[str]]:
    """The section with group sizes that fit, where its `fit` asks for them, and one line for each that was changed.

    Where nothing fits, the smallest usual size stands, and checking shapes says which matrix is in the way.

    Args:
        section: of the recipe.
        columns: from `columns_by_rule`.
        heads: widths of the heads of keys and values.
    """
    notes: list[str] = []

    def fitted(key: str, params: QuantizerParams | None, widths: Collection[int], *, whole: bool = False) -> Any:
        wish = params.group_size if params else None
        if params is None or wish is None or _divides(wish, widths):
            return params
        size, reason = _largest(widths, whole=whole)
        if reason:
            notes.append(f"quantization.{key}: group size {size} in place of {wish}: {reason}")
        return params.model_copy(update={"group_size": size})

    changes: dict[str, Any] = {"fit": ()}
    if "weights" in section.fit:
        none = Columns(set(), set())
        changes["weights"] = tuple(
            rule.model_copy(
                update={"quantizer": fitted(f"weights[{index}]", rule.quantizer, columns.get(index, none).weights)}
            )
            for index, rule in enumerate(section.weights)
        )
    if "activations" in section.fit:
        quantized = (of_rule.inputs for rule, of_rule in columns.items() if section.weights[rule].quantizer)
        changes["activations"] = fitted("activations", section.activations, set[int]().union(*quantized))
    if "kv_cache" in section.fit:
        # A head is short enough to have one scale.
        changes["kv_cache"] = fitted("kv_cache", section.kv_cache, heads, whole=max(heads, default=0) <= 256)
    return section.model_copy(update=changes), notes


def _largest(columns: Collection[int], *, whole: bool) -> tuple[int, str]:
    """The size for rows of these widths, and why, empty if none fits; `whole` rows of one width may be a group."""
    usual = ", ".join(map(str, USUAL_SIZES))
    size = next((size for size in USUAL_SIZES if _divides(size, columns)), None)
    if size is not None:
        return size, f"the largest of {usual} that divides {_listed(columns)} columns"
    if whole and len(set(columns)) == 1:
        return min(columns), f"a whole head, since none of {usual} divides it"
    return USUAL_SIZES[-1], ""


def _divides(size: int, columns: Collection[int]) -> bool:
    return all(width % size == 0 for width in columns)


def _listed(columns: Collection[int]) -> str:
    *first, last = map(str, sorted(set(columns)))
    return f"{', '.join(first)} and {last}" if first else last
