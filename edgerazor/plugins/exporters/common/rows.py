"""What an export takes, by how it is stored, for the report."""

from collections.abc import Iterable
from typing import Any

Stored = tuple[str, int, int]


def rows_by_type(stored: Iterable[Stored]) -> dict[str, dict[str, Any]]:
    """Rows of a report: `{type: {tensors, weights, bytes, bits_per_weight}}`, in the order in which types occur.

    Args:
        stored: type, weights and bytes of each tensor.
    """
    rows: dict[str, dict[str, Any]] = {}
    for name, weights, size in stored:
        row = rows.setdefault(name, {"tensors": 0, "weights": 0, "bytes": 0})
        row["tensors"] += 1
        row["weights"] += weights
        row["bytes"] += size
    for row in rows.values():
        row["bits_per_weight"] = 8 * row["bytes"] / row["weights"]
    return rows
