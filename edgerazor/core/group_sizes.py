"""Group sizes that fit a model: the wish where it divides every row, else the largest usual size that does."""

from collections.abc import Collection, Iterator, Mapping
from typing import Any, NamedTuple

from edgerazor.core.layers.table import kind_of
from edgerazor.schemas.components import QuantizerParams
from edgerazor.schemas.quantization import QuantizationSection, WeightRule

# Engines take these: blocks of GGUF and of ONNX Runtime are multiples of 32, up to 256.
USUAL_SIZES = (256, 128, 64, 32)


class Columns(NamedTuple):
    """Widths of the matrices that a rule takes, and of those among them whose inputs are quantized."""

    weights: set[int]
    inputs: set[int]


def columns_by_rule(layers: Mapping[str, Any], rule_of: Mapping[str, int]) -> dict[int, Columns]:
    """`{index of a weight rule: columns}`, from layers and the rules that take them, both by name."""
    found: dict[int, Columns] = {}
    for name, rule in rule_of.items():
        kind = kind_of(layers[name])
        if kind is not None:
            columns = found.setdefault(rule, Columns(set(), set()))
            width = kind.matrices(layers[name]).columns
            columns.weights.add(width)
            if kind.quantizes_inputs:
                columns.inputs.add(width)
    return found


class FittedSizes:
    """The quantizers of a section with group sizes that fit, where its `fit` asks for it.

    Where nothing fits, the smallest usual size stands, and checking shapes says which matrix is in the way.

    Args:
        section: of the recipe.
        columns: from `columns_by_rule`.
        heads: widths of the heads of keys and values.

    Attributes:
        section: with the sizes, and nothing left to fit.
        notes: one line for each size that was changed.
    """

    def __init__(self, section: QuantizationSection, columns: Mapping[int, Columns], heads: Collection[int]):
        self.notes: list[str] = []
        changes: dict[str, object] = {"fit": ()}
        if "weights" in section.fit:
            changes["weights"] = tuple(self._rules(section.weights, columns))
        if "activations" in section.fit:
            inputs = {
                width
                for rule, of_rule in columns.items()
                if section.weights[rule].quantizer is not None
                for width in of_rule.inputs
            }
            changes["activations"] = self._fitted("activations", section.activations, inputs)
        if "kv_cache" in section.fit:
            # A head is short enough to have one scale.
            changes["kv_cache"] = self._fitted("kv_cache", section.kv_cache, heads, whole=max(heads, default=0) <= 256)
        self.section = section.model_copy(update=changes)

    def _rules(self, rules: tuple[WeightRule, ...], columns: Mapping[int, Columns]) -> Iterator[WeightRule]:
        for index, rule in enumerate(rules):
            quantizer = self._fitted(
                f"weights[{index}]", rule.quantizer, columns[index].weights if index in columns else ()
            )
            yield rule.model_copy(update={"quantizer": quantizer})

    def _fitted(
        self, key: str, params: QuantizerParams | None, columns: Collection[int], *, whole: bool = False
    ) -> QuantizerParams | None:
        """Parameters with a size that divides all `columns`; `whole` rows of one width may be a group, too."""
        wish = params.group_size if params else None
        if params is None or wish is None or _divides(wish, columns):
            return params
        size = next((size for size in USUAL_SIZES if _divides(size, columns)), None)
        reason = f"the largest of {', '.join(map(str, USUAL_SIZES))} that divides {_listed(columns)} columns"
        if size is None and whole and len(set(columns)) == 1:
            size, reason = min(columns), f"a whole head, since none of {', '.join(map(str, USUAL_SIZES))} divides it"
        if size is not None:
            self.notes.append(f"quantization.{key}: group size {size} in place of {wish}: {reason}")
        return params.model_copy(update={"group_size": USUAL_SIZES[-1] if size is None else size})


def _divides(size: int, columns: Collection[int]) -> bool:
    return all(width % size == 0 for width in columns)


def _listed(columns: Collection[int]) -> str:
    *first, last = map(str, sorted(set(columns)))
    return f"{', '.join(first)} and {last}" if first else last
