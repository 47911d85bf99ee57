"""Inputs and outputs of the original release 1.3.5 (METHOD 11): the reference vectors in `tests/golden`."""

import json
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from edgerazor.core.discovery import load_plugins
from edgerazor.core.outputs import PositionMask, Targets

FOLDER = Path(__file__).parent / "golden"
REGISTRY = load_plugins(external=False)


@cache
def manifest() -> dict[str, Any]:
    """The description of all cases."""
    return json.loads((FOLDER / "manifest.json").read_text(encoding="utf-8"))


@cache
def tensors(section: str) -> dict[str, Tensor]:
    """All tensors of the file of a section."""
    return load_file(FOLDER / manifest()[section]["file"])


def cases(section: str, *expectations: str, part: str = "cases") -> Any:
    """A parametrisation over the cases of a section that expect one of `expectations`."""
    found = [case for case in manifest()[section].get(part, []) if case["expect"] in expectations]
    assert found, f"no case of {section} expects {expectations}"
    return pytest.mark.parametrize("case", [pytest.param(case, id=case["id"]) for case in found])


def params(kind: str, values: dict[str, Any]) -> Any:
    """Validated parameters."""
    return REGISTRY.params(kind, values["name"], **{key: value for key, value in values.items() if key != "name"})


def selector(values: dict[str, Any]) -> Any:
    """A layer selector."""
    return REGISTRY.build(params("selector", values))


def targets(labels: Tensor | None, shape: tuple[int, int]) -> Targets:
    """The masks that the vectors were made with: labels that are not -100, unshifted, for every loss."""
    everything = torch.ones(shape, dtype=torch.bool)
    mask = everything if labels is None else labels != -100
    learned, known = PositionMask.of(mask), torch.zeros(shape, dtype=torch.long) if labels is None else labels
    return Targets(known, learned, learned, PositionMask.of(everything))


def difference(found: Tensor, expected: Tensor) -> float:
    """Largest difference over the largest value expected; infinite where the shapes differ or a value is not finite."""
    if found.shape != expected.shape or not bool(torch.isfinite(found).all()):
        return float("inf")
    found, expected = found.detach().double(), expected.double()
    return float((found - expected).abs().max() / expected.abs().max().clamp(min=1e-30))


def same_libraries() -> bool:
    """True if torch and transformers are the ones the vectors were made with: then no 8-bit code may flip."""
    made_with = manifest()["generator"]
    return all(f"{name} {version(name).split('+')[0]}" in made_with for name in ("torch", "transformers"))
