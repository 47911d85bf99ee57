"""The pictures of a report: which there are, and what each shows."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from edgerazor.report.history import chosen_layers, curve, names_of_figures, names_of_losses
from edgerazor.report.packed import bits_of_layers
from edgerazor.report.plots import STEPS, Frame, Points, Series, choices, curves, points
from edgerazor.report.records import RunRecord


@dataclass(frozen=True)
class Picture:
    """A picture with the line under it; `note` says what the picture alone would not."""

    title: str
    svg: str
    note: str = ""


def curves_of_losses(records: Sequence[RunRecord]) -> list[Picture]:
    """The loss, each part of it, the learning rate, and held-out loss where it was measured more than once."""
    names = dict.fromkeys(name for record in records for name in names_of_losses(record.history))
    found = [*_curves(records, [*names]), *_curves(records, ["learning_rate"], frame=Frame(wide=math.inf))]
    measured = _series(records, partial(_logged, "eval_loss"), least=2)
    if measured:
        label = _label("held-out loss over steps", measured)
        found.append(Picture("held-out loss", curves(measured, name="curve eval_loss", label=label)))
    return found


def curves_of_figures(records: Sequence[RunRecord]) -> list[Picture]:
    """What losses say of themselves, such as the entropy of the teacher."""
    names = dict.fromkeys(name for record in records for name in names_of_figures(record.history))
    return [*_curves(records, [*names])]


def layer_choices(records: Sequence[RunRecord]) -> list[Picture]:
    """A picture for each run and loss whose layers are chosen anew, by LAFD or another selector."""
    found = []
    for index, record in enumerate(records):
        for loss, history in chosen_layers(record.history).items():
            often: dict[int, float] = {}
            for _, shares in history:
                for layer, share in shares.items():
                    often[layer] = often.get(layer, 0.0) + share / len(history)
            if not any(often.values()):
                continue
            said = ", ".join(f"{layer} ({share:.0%})" for layer, share in sorted(often.items()) if share >= 0.005)
            name = f"choice {record.name} {loss}"
            label = f"Layers that {loss} of {record.name} compared, over steps; share of all steps: {said}"
            note = f"Share of all steps, by layer: {said}."
            if loss in record.settled:
                note += " Calibration fixed them before the first step."
            picture = choices(history, index=index, name=name, label=label)
            found.append(Picture(f"{record.name}: {loss}", picture, note))
    return found


def bits_per_layer(records: Sequence[RunRecord]) -> Picture | None:
    """Mean bits per weight of each decoder layer."""
    series = _series(records, _bits_of_layers)
    if not series:
        return None
    label = _label("Mean bits per weight of each decoder layer, scales included", series)
    return Picture(
        "bits per weight of each decoder layer, scales included",
        curves(series, name="bits of layers", label=label, frame=Frame("layer"), dots=True),
    )


def sizes_and_figures(records: Sequence[RunRecord]) -> list[Picture]:
    """Size against held-out loss, its gap to the teacher and KL, for runs that have both."""
    found = []
    for key, title in (
        ("loss", "held-out loss, nats per token"),
        ("loss_gap", "held-out loss above the teacher's, nats per token"),
        ("kl_teacher", "KL to the teacher, nats per token"),
    ):
        series = _series(records, partial(_size_and, key))
        if series:
            shown = "; ".join(f"{run.name}: {run.points[0][0]:.3g} MB, {run.points[0][1]:.4f}" for run in series)
            picture = points(
                series, name=f"size {key}", label=f"Size against {title}. {shown}", frame=Frame("size on disk, MB")
            )
            found.append(Picture(title, picture))
    return found


def figure_of(record: RunRecord, key: str) -> float | None:
    """A held-out figure; the gap also from the two losses it is made of."""
    figures = record.figures
    if key == "loss_gap" and key not in figures and "loss" in figures and "teacher_loss" in figures:
        return figures["loss"] - figures["teacher_loss"]
    return figures.get(key)


def _curves(records: Sequence[RunRecord], names: Sequence[str], frame: Frame = STEPS) -> Iterator[Picture]:
    for name in names:
        series = _series(records, partial(_logged, name))
        if series:
            picture = curves(series, name=f"curve {name}", label=_label(f"{name} over steps", series), frame=frame)
            yield Picture(name.replace("learning_", "learning "), picture)


def _bits_of_layers(record: RunRecord) -> Points:
    return bits_of_layers(record.packed.matrices) if record.packed else []


def _size_and(key: str, record: RunRecord) -> Points:
    value = figure_of(record, key)
    return [] if value is None or not record.bytes else [(record.bytes / 1e6, value)]


def _logged(name: str, record: RunRecord) -> Points:
    return curve(record.history, name)


def _series(records: Sequence[RunRecord], values: Callable[[RunRecord], Points], least: int = 1) -> list[Series]:
    found = [Series(index, record.name, values(record)) for index, record in enumerate(records)]
    return [series for series in found if len(series.points) >= least]


def _label(what: str, series: Sequence[Series]) -> str:
    """What a line does, in words: its first and its last value."""
    said = "; ".join(f"{line.name}: from {line.points[0][1]:.4g} to {line.points[-1][1]:.4g}" for line in series)
    return f"{what}. {said}"
