"""`report.md` and `report.html` of a quickstart: the table, the claims, size against loss, and the training curves."""

from pathlib import Path
from typing import TYPE_CHECKING

from edgerazor.report.extra import check_report_extra
from edgerazor.report.history import curve
from edgerazor.report.page import render_page
from edgerazor.report.plots import Frame, Series, curves, points
from edgerazor.report.svg import standalone

if TYPE_CHECKING:
    from edgerazor.quickstart.results import Results

_KINDS = ("teacher", "rounded", "distilled", "cross_entropy", "exported")
_SIZE, _CURVES = "size_loss", "curves"
_LARGE = (6.8, 4.2)


def write_report(results: "Results", folder: Path) -> list[Path]:
    """Write both reports and the plots they show; returns the paths of the reports.

    Raises:
        EdgeRazorError: the extra `report` (Jinja2 and matplotlib) is not installed.
    """
    check_report_extra()
    plots = {_SIZE: _size_and_loss(results), _CURVES: _curves(results)}
    written = []
    for suffix in ("md", "html"):
        path = folder / f"report.{suffix}"
        template = f"report.{suffix}.j2"
        text = render_page(template, package="edgerazor.quickstart", results=results, plots=plots)
        path.write_text(text, encoding="utf-8")
        written.append(path)
    for name, svg in plots.items():
        (folder / f"{name}.svg").write_text(standalone(svg), encoding="utf-8")
    return written


def _size_and_loss(results: "Results") -> str:
    rows = [
        Series(_KINDS.index(row.kind), f"{row.bits:g}", [(row.bytes / 1e6, row.loss)])
        for row in results.rows
        if row.kind in _KINDS
    ]
    kinds = {
        kind.replace("_", " "): index for index, kind in enumerate(_KINDS) if any(row.index == index for row in rows)
    }
    frame = Frame(
        "size on disk, MB",
        "held-out loss, nats per token",
        wide=2.0,
        key=kinds,
        reference=results.teacher.loss,
        size=_LARGE,
    )
    label = "Size against held-out loss; the numbers are those of the table"
    return points(rows, name=_SIZE, label=label, frame=frame)


def _curves(results: "Results") -> str:
    logged = {name: curve(history, "eakld/forward_kl") for name, history in results.curves.items()}
    series = [Series(index, name, values) for index, (name, values) in enumerate(logged.items()) if values]
    said = "; ".join(f"{line.name}: from {line.points[0][1]:.3f} to {line.points[-1][1]:.3f}" for line in series)
    key = {line.name: line.index for line in series}
    frame = Frame("optimizer step", "KL(teacher, student), nats per token", wide=2.0, key=key, size=_LARGE)
    return curves(series, name=_CURVES, label=f"KL of teacher and student over optimizer steps. {said}", frame=frame)
