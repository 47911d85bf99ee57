"""An assignment as weight rules: explicit, first match wins, checked by planning them again."""

from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path

from edgerazor.core.atomic import write_text
from edgerazor.core.names import layer_pattern
from edgerazor.core.registry import Registry
from edgerazor.core.resolved_recipe import resolve_recipe
from edgerazor.errors import RecipeError
from edgerazor.schemas.components import QuantizerParams
from edgerazor.schemas.quantization import QuantizationSection, WeightRule
from edgerazor.schemas.recipe import Recipe


def assigned_section(
    section: QuantizationSection,
    rules_of: Mapping[str, int],
    assignment: Mapping[str, QuantizerParams],
    names: Iterable[str],
) -> QuantizationSection:
    """The section with every body rule split into one rule per quantizer.

    Each body rule keeps its place and its globs, for the quantizer that most of its modules get; rules that name the
    others stand right before it, so that all modules outside the body keep theirs.

    Args:
        section: as it was.
        rules_of: index of the body rule that took each assigned module.
        assignment: quantizer of each module of the body.
        names: of all quantizable modules of the model.
    """
    everything, written = list(names), []
    for index, rule in enumerate(section.weights):
        mine = {name: params for name, params in assignment.items() if rules_of[name] == index}
        if not mine:
            written.append(rule)
            continue
        groups: dict[QuantizerParams, list[str]] = {}
        for name, params in mine.items():
            groups.setdefault(params, []).append(name)
        most = max(groups, key=lambda params: len(groups[params]))
        written += [
            WeightRule.model_construct(match=tuple(globs(group, everything)), quantizer=params)
            for params, group in groups.items()
            if params != most
        ]
        written.append(rule.model_copy(update={"quantizer": most}))
    return section.model_copy(update={"weights": tuple(written)})


def globs(wanted: Sequence[str], everything: Sequence[str]) -> list[str]:
    """Names and globs that match `wanted` among `everything` and nothing else; layers that agree share one."""
    found: list[str] = []
    for name in wanted:
        pattern = layer_pattern(name)
        alike = {other for other in everything if fnmatchcase(other, pattern)}
        shared = len(alike) > 1 and alike <= set(wanted)
        if (entry := pattern if shared else name) not in found:
            found.append(entry)
    return found


def write_allocated_recipe(recipe: Recipe, path: Path, *, comment: Sequence[str], registry: Registry) -> None:
    """Write the resolved recipe as YAML under a few lines of comment.

    Raises:
        RecipeError: the file cannot be written.
    """
    # Both sections that a preset fills are written out, so its name would only mislead.
    explicit = resolve_recipe(recipe, registry=registry).model_copy(update={"preset": None})
    text = "".join(f"# {line}\n" for line in comment) + explicit.to_yaml()
    try:
        write_text(path, text)
    except OSError as error:
        raise RecipeError(f"{path}: cannot be written: {error.strerror or error}") from error
