"""`report.md` and `report.html` of a quickstart: the table, the claims, size against loss, and the training curves."""

import base64
import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgerazor.errors import EdgeRazorError, install_hint

if TYPE_CHECKING:
    from edgerazor.quickstart.results import Results

_COLOURS = {
    "teacher": "#222222",
    "rounded": "#c0504d",
    "distilled": "#1f77b4",
    "cross_entropy": "#e8a33d",
    "exported": "#6aa84f",
}


def check_report_extra() -> None:
    """Import what the report is made with, so that a long run need not end in finding that it is absent.

    Raises:
        EdgeRazorError: the extra `report` (Jinja2 and matplotlib) is not installed.
    """
    try:
        import jinja2  # noqa: F401
        import matplotlib
    except ImportError as error:
        raise EdgeRazorError(f"the report needs {error.name}: {install_hint('report')}") from error
    matplotlib.use("Agg")


def write_report(results: "Results", folder: Path) -> list[Path]:
    """Write both reports and the plots they show; returns the paths of the reports.

    Raises:
        EdgeRazorError: the extra `report` (Jinja2 and matplotlib) is not installed.
    """
    check_report_extra()
    import jinja2

    plots = {"size_loss": _size_and_loss(results), "curves": _curves(results)}
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("edgerazor.quickstart", "templates"),
        autoescape=lambda name: bool(name and name.endswith(".html.j2")),
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    written = []
    for suffix in ("md", "html"):
        path = folder / f"report.{suffix}"
        images = {
            name: f"{name}.png" if suffix == "md" else "data:image/png;base64," + base64.b64encode(image).decode()
            for name, image in plots.items()
        }
        text = environment.get_template(f"report.{suffix}.j2").render(results=results, images=images)
        path.write_text(text, encoding="utf-8")
        written.append(path)
    for name, image in plots.items():
        (folder / f"{name}.png").write_bytes(image)
    return written


def _size_and_loss(results: "Results") -> bytes:
    from matplotlib.ticker import ScalarFormatter

    figure, axes = _figure()
    for kind, colour in _COLOURS.items():
        rows = [row for row in results.rows if row.kind == kind]
        if rows:
            label = kind.replace("_", " ")
            axes.scatter(
                [row.bytes / 1e6 for row in rows], [row.loss for row in rows], color=colour, label=label, zorder=3
            )
        for row in rows:
            axes.annotate(
                f"{row.bits:g}", (row.bytes / 1e6, row.loss), textcoords="offset points", xytext=(5, 4), fontsize=8
            )
    axes.axhline(results.teacher.loss, color="#999999", linewidth=0.8, linestyle="--")
    axes.set(
        xlabel="size on disk, MB", ylabel="held-out loss, nats per token", title="Size against loss (labels: bits)"
    )
    axes.set(xscale="log", yscale="log")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(ScalarFormatter())
        axis.set_minor_formatter(ScalarFormatter())
    axes.legend()
    return _png(figure)


def _curves(results: "Results") -> bytes:
    figure, axes = _figure()
    for name, history in results.curves.items():
        points = [(entry["step"], entry["eakld/forward_kl"]) for entry in history if "eakld/forward_kl" in entry]
        if points:
            axes.plot(*zip(*points, strict=True), label=name)
    axes.set(xlabel="optimizer step", ylabel="KL(teacher, student), nats per token", title="Training", yscale="log")
    if results.curves:
        axes.legend(fontsize=8)
    return _png(figure)


def _figure() -> Any:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.2), dpi=110, layout="constrained")
    axes = figure.subplots()
    axes.grid(alpha=0.3)
    return figure, axes


def _png(figure: Any) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()
