"""The table of the digits: held-out accuracy by model, method and width, with its spread over the seeds."""

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

Unit = Mapping[str, Any]
HEADERS = ("model", "method", "bits", "seeds", "top-1", "KL to the teacher", "agreement", "kB", "seconds")


def table(units: Sequence[Unit]) -> str:
    """Markdown: means over the seeds, ± the standard error; KL in nats per picture."""
    groups: dict[tuple[str, str], list[Unit]] = {}
    for unit in units:
        groups.setdefault((unit["family"], unit["name"]), []).append(unit)
    lines = ["| " + " | ".join(HEADERS) + " |", "|" + "---|" * len(HEADERS)]
    for (family, _), found in groups.items():
        first = found[0]
        cells = (
            family,
            first["method"],
            f"{first['bits']:g}",
            str(len(found)),
            mean_spread([100 * unit["top1"] for unit in found], 2) + " %",
            mean_spread([unit["kl_teacher"] for unit in found], 4),
            mean_spread([100 * unit["top1_agreement"] for unit in found], 2) + " %",
            f"{statistics.fmean(unit['bytes'] for unit in found) / 1e3:.0f}",
            f"{statistics.fmean(unit.get('seconds', 0) for unit in found):.0f}",
        )
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def mean_spread(values: Sequence[float], digits: int) -> str:
    """Mean ± standard error of the mean; the mean alone of a single value."""
    spread = f" ± {statistics.stdev(values) / len(values) ** 0.5:.{digits}f}" if len(values) > 1 else ""
    return f"{statistics.fmean(values):.{digits}f}{spread}"
