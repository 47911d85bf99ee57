"""What the scripts have in common: the machine, memory, one table and one JSON."""

import json
import os
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    found: dict[str, Any] = {
        "system": platform.platform(),
        "python": platform.python_version(),
        "cores": os.cpu_count(),
    }
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    fields = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    flags = set(fields.get("flags", "").split())
    found["processor"] = fields.get("model name", platform.processor())
    known = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_int8", "amx_bf16")
    found["instructions"] = [name for name in known if name in flags]
    return found


def memory(peak: bool = False) -> float:
    """Resident memory of this process in MiB, now or at its peak since it started."""
    wanted = "VmHWM:" if peak else "VmRSS:"
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(float(line.split()[1]) for line in lines if line.startswith(wanted)) / 1024


def publish(
    path: Path,
    rows: Sequence[Mapping[str, Any]],
    columns: Mapping[str, str],
    facts: Mapping[str, Any],
    console: Console,
) -> None:
    """Print the table as Markdown and for people, and write the JSON.

    Args:
        path: of the JSON.
        rows: one per contestant.
        columns: header by key of a row; a number is shown with three digits or one decimal.
        facts: written beside the rows.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"machine": machine(), **facts, "rows": list(rows)}, indent=1) + "\n", encoding="utf-8")
    show(rows, columns, console)


def show(rows: Sequence[Mapping[str, Any]], columns: Mapping[str, str], console: Console) -> None:
    """Print a table for people, then as Markdown."""
    table = Table(*columns.values())
    for row in rows:
        table.add_row(*(_shown(row.get(key)) for key in columns))
    console.print(table)
    print(markdown(rows, columns))


def markdown(rows: Sequence[Mapping[str, Any]], columns: Mapping[str, str]) -> str:
    """Rows as a Markdown table, for a document."""
    lines = ["| " + " | ".join(columns.values()) + " |", "|" + "---|" * len(columns)]
    lines += ["| " + " | ".join(_shown(row.get(key)) for key in columns) + " |" for row in rows]
    return "\n".join(lines)


def _shown(value: Any) -> str:
    if not isinstance(value, float):
        return "–" if value is None else str(value)
    return f"{value:.2f}" if abs(value) < 10 else f"{value:.1f}" if abs(value) < 1000 else f"{value:.0f}"
