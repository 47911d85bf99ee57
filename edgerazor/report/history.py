"""What the log of a run holds: curves of its losses and the layers that were chosen."""

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from edgerazor.report.plots import Points

_NO_LOSS = {"learning_rate", "grad_norm", "epoch", "step", "total_flos"}
_OF_A_LAYER = re.compile(r"(.+)/(chosen|layer)_(\d+)$")

History = Sequence[Mapping[str, Any]]


def curve(history: History, key: str) -> Points:
    """Step and value of everything logged under a name; numbers that are not finite are left out."""
    return [(entry["step"], entry[key]) for entry in history if _is_number(entry.get(key)) and "step" in entry]


def names_of_losses(history: History) -> list[str]:
    """`loss`, `task`, and every loss of the recipe, in the order in which they were first logged."""
    return [name for name in _names(history) if "/" not in name]


def names_of_figures(history: History) -> list[str]:
    """What losses say besides, such as `eakld/gamma`, but nothing of single layers."""
    return [name for name in _names(history) if "/" in name and not _OF_A_LAYER.match(name)]


def chosen_layers(history: History) -> dict[str, list[tuple[float, dict[int, float]]]]:
    """By the name of the loss: step and `{layer: share of the batches since the last log that chose it}`."""
    found: dict[str, list[tuple[float, dict[int, float]]]] = {}
    for entry in history:
        shares: dict[str, dict[int, float]] = {}
        for name, value in entry.items():
            match = _OF_A_LAYER.match(name)
            if match and match[2] == "chosen" and _is_number(value):
                shares.setdefault(match[1], {})[int(match[3])] = value
        for loss, layers in shares.items():
            found.setdefault(loss, []).append((entry.get("step", 0), layers))
    return found


def last_figures(history: History) -> dict[str, float]:
    """The newest held-out figures of the log, by name without `eval_`."""
    measured = [entry for entry in history if "eval_loss" in entry]
    return held_out_figures(measured[-1]) if measured else {}


def held_out_figures(content: Mapping[str, Any]) -> dict[str, float]:
    """Figures by name without `eval_`."""
    return {
        name.removeprefix("eval_"): value
        for name, value in content.items()
        if name.startswith("eval_") and _is_number(value)
    }


def _names(history: History) -> list[str]:
    names = dict.fromkeys(name for entry in history if "loss" in entry for name in entry)
    return [name for name in names if name not in _NO_LOSS and not name.startswith(("eval_", "train_"))]


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
