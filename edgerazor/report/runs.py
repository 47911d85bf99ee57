"""The report of several runs."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from edgerazor.report import pictures
from edgerazor.report.answers import Answers
from edgerazor.report.history import chosen_layers
from edgerazor.report.packed import bits_of_kinds
from edgerazor.report.page import render_page
from edgerazor.report.records import RunRecord
from edgerazor.report.svg import colour_name, dash
from edgerazor.report.tasks import TaskTable
from edgerazor.version import __version__


@dataclass(frozen=True)
class Row:
    """A run in the first table: the cells are texts, a dash where nothing is known.

    Attributes:
        colour: of its lines, in CSS.
        dash: pattern of its lines, as matplotlib writes it.
    """

    record: RunRecord
    colour: str
    dash: str
    cells: Sequence[str]


COLUMNS = (
    "what it is",
    "recipe",
    "steps",
    "tokens",
    "bits per weight",
    "MB",
    "held-out loss",
    "gap to teacher",
    "bits per byte",
    "KL to teacher",
    "top-1 agreement",
)
_NOTHING = "–"


def runs_report(records: Sequence[RunRecord], tasks: TaskTable, answers: Answers, *, title: str) -> str:
    """The page: HTML with everything inside."""
    rows = [Row(record, colour_name(index), dash(index), _cells(record)) for index, record in enumerate(records)]
    return render_page(
        "runs.html.j2",
        title=title,
        version=__version__,
        columns=COLUMNS,
        rows=rows,
        notes=_notes(records),
        lacks=_all_lacks(records, tasks, answers),
        sizes=pictures.sizes_and_figures(records),
        curves=pictures.curves_of_losses(records),
        details=pictures.curves_of_figures(records),
        choices=pictures.layer_choices(records),
        bits=pictures.bits_per_layer(records),
        kinds=_kinds(records),
        tasks=tasks,
        answers=answers,
    )


def _cells(record: RunRecord) -> list[str]:
    size, packed, agreement = record.bytes, record.packed, record.figures.get("top1_agreement")
    bits = 16.0 if record.kind == "16-bit model" else packed.bits if packed else None
    figures = [pictures.figure_of(record, key) for key in ("loss", "loss_gap", "bits_per_byte", "kl_teacher")]
    return [
        record.kind if record.finished else f"{record.kind}, not finished",
        _recipe_name(record.recipe),
        _steps(record),
        _NOTHING if not record.tokens else f"{record.tokens:,}",
        _NOTHING if bits is None else f"{bits:.2f}",
        _NOTHING if size is None else f"{size / 1e6:,.3f}" if size < 1e8 else f"{size / 1e6:,.1f}",
        *(_NOTHING if figure is None else f"{figure:.4f}" for figure in figures),
        _NOTHING if agreement is None else f"{100 * agreement:.1f} %",
    ]


def _steps(record: RunRecord) -> str:
    if record.step is None:
        return _NOTHING
    return (
        f"{record.step:,}"
        if record.finished or record.last_step is None
        else f"{record.step:,} of {record.last_step:,}"
    )


def _recipe_name(recipe: Mapping[str, Any]) -> str:
    """The preset, or the quantizers of its rules."""
    preset = recipe.get("preset")
    if preset:
        return str(preset.get("name") if isinstance(preset, Mapping) else preset)
    rules = (recipe.get("quantization") or {}).get("weights") or ()
    names = [rule["quantizer"]["name"] if rule.get("quantizer") else "16 bit" for rule in rules]
    return ", ".join(dict.fromkeys(names)) or _NOTHING


def _all_lacks(records: Sequence[RunRecord], tasks: TaskTable, answers: Answers) -> dict[str, list[str]]:
    """What the report cannot show and why, with the names of the runs."""
    found: dict[str, list[str]] = {}
    for record in records:
        alone = "" if record.is_training else f": {_article(record.kind)} has none"
        for line in (
            *_lacks_of_training(record, alone),
            *_lacks_of_figures(record),
            *(() if record.name in tasks.columns else ("Tasks: no results were given, and none lie in its folder",)),
            *_lacks_of_answers(record, answers),
        ):
            found.setdefault(line, []).append(record.name)
    return found


def _lacks_of_training(record: RunRecord, alone: str) -> Iterator[str]:
    if not record.finished:
        yield "The end: the run was interrupted or goes on; what is shown is as of its newest checkpoint"
    if not record.history:
        yield f"Training curves{alone or ': nothing was logged before it ended'}"
    if not chosen_layers(record.history):
        yield f"Layers compared{alone or ': no loss of its recipe compares layers, or nothing was logged'}"
    if record.packed is None:
        yield f"Bits per layer{alone or ': there is no packed checkpoint'}"


def _lacks_of_figures(record: RunRecord) -> Iterator[str]:
    if not record.figures:
        yield "Held-out figures: none were measured"
    elif pictures.figure_of(record, "loss_gap") is None:
        yield "The gap to the teacher: the teacher's own loss was not recorded"


def _lacks_of_answers(record: RunRecord, answers: Answers) -> Iterator[str]:
    if answers.questions and record.name not in answers.texts:
        yield f"Answers: {answers.faults.get(record.name, 'there is no model that could answer')}"


def _article(kind: str) -> str:
    return f"an {kind}" if kind.startswith("e") else f"a {kind}"


def _notes(records: Sequence[RunRecord]) -> list[str]:
    """What keeps the held-out figures of two runs from being compared."""
    measured = [record for record in records if record.figures]
    if all(_held_out(first) == _held_out(second) for first, second in pairwise(measured)):
        return []
    return [
        "The held-out figures are not all of the same text: the recipes hold out other data, or evaluate other parts "
        "of it. Losses and KL of such runs do not compare."
    ]


def _held_out(record: RunRecord) -> Any:
    data, evaluation = (record.recipe.get(key) or {} for key in ("data", "evaluation"))
    of_sources = isinstance(data.get("held_out"), float)
    seen = [data.get(key) for key in ("held_out", "sequence_length", *(("sources", "seed") if of_sources else ()))]
    return seen, [evaluation.get(key) for key in ("batches", "batch_size")], record.figures.get("tokens")


def _kinds(records: Sequence[RunRecord]) -> list[tuple[str, list[str]]]:
    """Kind of matrix, `*` for the number of its layer, and its bits in each run that says them."""
    bits = [bits_of_kinds(record.packed.matrices if record.packed else ()) for record in records]
    patterns = dict.fromkeys(pattern for kinds in bits for pattern in kinds)
    return [(pattern, [kinds.get(pattern, _NOTHING) for kinds in bits]) for pattern in patterns]
