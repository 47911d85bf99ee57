"""A contestant's packed checkpoint: rounded, rounded on data, or trained."""

from pathlib import Path
from typing import Any

from rich.console import Console
from textbook_gptq import pack_gptq

from edgerazor import train
from edgerazor.calibrate import pack_calibrated
from edgerazor.checkpoint import pack_model
from edgerazor.core.registry import Registry
from edgerazor.core.run_folder import PACKED
from edgerazor.schemas.data import DataSection
from edgerazor.schemas.recipe import Recipe


def make_checkpoint(
    kind: str,
    recipe: Recipe,
    work: Path,
    registry: Registry,
    *,
    calibration: DataSection,
    samples: int,
    data: Any = None,
) -> tuple[Path, Any]:
    """The folder of the checkpoint, and what training gave; None where nothing was trained.

    Args:
        kind: "rounded", "gptq", "calibrated" or "trained".
        recipe: of the contestant.
        work: free folder.
        registry: loaded plugins.
        calibration: rows to round on, `samples` at most.
        data: rows to train on; None reads those of the recipe.
    """
    if kind == "rounded":
        pack_model(recipe, registry=registry, output=work)
    elif kind == "gptq":
        pack_gptq(recipe, registry=registry, output=work, data=calibration, samples=samples)
    elif kind == "calibrated":
        pack_calibrated(recipe, registry=registry, output=work, data=calibration, samples=samples)
    else:
        result = train(recipe, registry=registry, output=work, data=data, console=Console(quiet=True))
        if result.checkpoint is None:
            raise KeyboardInterrupt
        return work / PACKED, result
    return work, None
