"""Rotary embeddings that a configuration of mlx_lm cannot state are one line each, whatever their values are."""

from typing import Any

import pytest

from edgerazor.core.contracts import Rope
from edgerazor.plugins.exporters.mlx.rotary import describe_rope, positions_of_one_rotation

ORIGINAL = {"original_max_position_embeddings": 32}
LONG = {**ORIGINAL, "short_factor": [1.0, 2.0], "long_factor": [3.0, 4.0]}
REFUSED: dict[str, tuple[Rope, str]] = {
    "another kind": (Rope(1e4, "dynamic"), "rope_type 'dynamic': mlx_lm computes it otherwise; known: default, "),
    "sections": (Rope(1e4, sections=(2, 3, 3)), "mrope_section: "),
    "a yarn that is not rounded": (
        Rope(1e4, "yarn", {**ORIGINAL, "factor": 2.0, "truncate": False}),
        "rope_parameters.tr",
    ),
    "a yarn that only scales": (
        Rope(1e4, "yarn", {**ORIGINAL, "factor": 1.0, "attention_factor": 1.5}),
        "rope_parameters.attention_factor: mlx_lm has no such key for a factor of at most 1",
    ),
    "no number": (Rope(1e4, "yarn", {**ORIGINAL, "factor": "two"}), "rope_parameters: holds a value that is no number"),
    "longrope of no factors": (Rope(1e4, "longrope", ORIGINAL), "rope_parameters: longrope needs "),
    "longrope that scales": (
        Rope(1e4, "longrope", {**LONG, "attention_factor": 1.2}),
        "rope_parameters.attention_factor",
    ),
    "longrope of another factor": (
        Rope(1e4, "longrope", {**LONG, "factor": 4.0}),
        "rope_parameters.factor 4.0: mlx_lm takes 64 / 32 positions",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_stated_is_one_line(case: str) -> None:
    rope, expected = REFUSED[case]
    (problem,) = describe_rope(rope, 64)[1]
    assert problem.startswith(expected)


@pytest.mark.parametrize(
    ("rope", "stated"),
    [
        (Rope(1e4), None),
        (Rope(1e4, "linear", {"factor": 8.0}), {"factor": 8.0}),
        (Rope(1e4, "longrope", {**LONG, "factor": 2.0}), {**LONG, "long_factor": LONG["short_factor"]}),
        (Rope(1e4, "yarn", {**ORIGINAL, "factor": None, "mscale": 0.7}), {**ORIGINAL, "factor": 2.0}),
    ],
)
def test_what_is_stated(rope: Rope, stated: dict[str, Any] | None) -> None:
    scaling, problems = describe_rope(rope, 64)
    kind = {"type": rope.kind, "rope_type": rope.kind}
    assert (scaling, problems) == (None if stated is None else {**kind, **stated}, [])
    assert positions_of_one_rotation(scaling, 64) == (32 if rope.kind == "longrope" else 64)
