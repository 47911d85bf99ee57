"""Means, spreads and differences of the laboratory's units: one JSON, one table, one plot."""

import json
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from quality_contestants import LEARNING

from edgerazor.core.atomic import write_text

FIGURES = ("loss", "kl_teacher", "top1_agreement", "bytes", "tokens", "seconds")
Unit = Mapping[str, Any]
_COLOURS = {"rounding": "#c0504d", "calibrated rounding": "#e8a33d", "published": "#1f77b4"}


def summarise(units: Sequence[Unit]) -> list[dict[str, Any]]:
    """One row per contestant: mean and standard error of its figures, and of its KL minus that of the published recipe.

    Differences are taken seed by seed, between contestants of one width and kind of text.
    """
    teacher = next(unit for unit in units if unit["method"] == "teacher")
    by_name: dict[str, dict[int, Unit]] = {}
    for unit in units:
        by_name.setdefault(unit["name"], {})[unit["seed"]] = unit
    usual = {(found["bits"], found.get("data")): found["name"] for found in units if found["method"] == "published"}
    rows = []
    for name, seeds in by_name.items():
        first = next(iter(seeds.values()))
        row: dict[str, Any] = {"name": name, "method": first["method"], "bits": first["bits"], "seeds": len(seeds)}
        for figure in FIGURES:
            row[figure], row[f"{figure}_error"] = mean_error([unit.get(figure) or 0 for unit in seeds.values()])
        row["gap"] = row["loss"] - teacher["loss"]
        other = by_name.get(usual.get((first["bits"], first.get("data", "human")), ""), {})
        differences = [seeds[seed]["kl_teacher"] - other[seed]["kl_teacher"] for seed in seeds.keys() & other.keys()]
        if differences and first["kind"] in LEARNING and first["method"] != "published":
            row["difference"], row["difference_error"] = mean_error(differences)
        rows.append(row)
    return rows


def mean_error(values: Sequence[float]) -> tuple[float, float | None]:
    """Mean and its standard error; None for a single value."""
    error = statistics.stdev(values) / len(values) ** 0.5 if len(values) > 1 else None
    return statistics.fmean(values), error


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Markdown: losses and KL in nats per token, mean ± standard error over the seeds."""
    headers = ("contestant", "seeds", "held-out loss", "gap", "KL to teacher", "KL − published", "top-1")
    headers += ("MB", "tokens", "seconds")
    lines = ["| " + " | ".join(headers) + " |", "|" + "---|" * len(headers)]
    for row in rows:
        cells = (
            row["name"],
            str(row["seeds"]),
            _shown(row["loss"], row["loss_error"]),
            f"{row['gap']:+.4f}",
            _shown(row["kl_teacher"], row["kl_teacher_error"]),
            _shown(row["difference"], row["difference_error"], sign="+") if "difference" in row else "–",
            f"{100 * row['top1_agreement']:.1f} %",
            f"{row['bytes'] / 1e6:.3f}",
            f"{row['tokens']:.0f}" if row["tokens"] else "–",
            f"{row['seconds']:.0f}" if row["seconds"] else "–",
        )
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def write_results(folder: Path, units: Sequence[Unit], machine: Mapping[str, Any]) -> None:
    """Write `results.json`, `table.md` and `quality.svg`."""
    rows = summarise(units)
    content = {"machine": dict(machine), "rows": rows, "units": list(units)}
    write_text(folder / "results.json", json.dumps(content, indent=1) + "\n")
    write_text(folder / "table.md", table(rows))
    plot(rows, units, folder / "quality.svg")


def plot(rows: Sequence[Mapping[str, Any]], units: Sequence[Unit], path: Path) -> None:
    """The gap to the teacher against bytes, and the held-out loss of the first seed against tokens."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 4.6), layout="constrained")
    size, curves = figure.subplots(1, 2)
    for row in rows:
        if row["method"] == "teacher":
            continue
        colour = _COLOURS.get(row["method"], "#888888")
        size.errorbar(
            row["bytes"] / 1e6, row["gap"], yerr=row["loss_error"] or 0, fmt="o", color=colour, markersize=4, capsize=2
        )
    for method, colour in {**_COLOURS, "others": "#888888"}.items():
        size.plot([], [], "o", color=colour, label=method)
    size.set(xlabel="size on disk, MB", ylabel="held-out loss above the teacher's, nats")
    size.set_yscale("symlog", linthresh=0.01)
    size.legend(fontsize=8)
    first = min((unit["seed"] for unit in units if unit.get("curve")), default=0)
    for unit in units:
        if unit.get("curve") and unit["seed"] == first and unit["bits"] == 1.88 and unit["data"] == "human":
            tokens, losses, _ = zip(*unit["curve"], strict=True)
            curves.plot(tokens, losses, marker=".", label=unit["method"])
    curves.set(xlabel="tokens", ylabel="held-out loss, nats", title="1.88 bit")
    if curves.lines:
        curves.legend(fontsize=6)
    for axes in (size, curves):
        axes.grid(alpha=0.3)
    figure.savefig(path, metadata={"Date": None})


def _shown(mean: float, error: float | None, sign: str = "") -> str:
    return f"{mean:{sign}.4f}" + ("" if error is None else f" ± {error:.4f}")
