"""What a graph has no operator for is refused by the facts of the model, whatever its family is called."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from gguf_cases import Packed
from onnx_cases import make_onnx

pytest.importorskip("onnx_ir")

from edgerazor.core.contracts import Rope
from edgerazor.core.registry import Registry
from edgerazor.errors import ExportError

REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "some layers slide": (
        {"windows": (None, 64)},
        "window 64 on layer 1: sliding windows are not covered; set context_length to 64 or less",
    ),
    "a layer that does not rotate": (
        {"ropes": (None, Rope(1e4))},
        "no rotary embedding on layer 0; only models whose layers all rotate are covered",
    ),
    "two bases": ({"ropes": (Rope(1e4), Rope(1e6))}, "layers with rotary tables of their own are not covered"),
    "half a head": (
        {"ropes": (Rope(1e4, partial=0.5),) * 2},
        "partial_rotary_factor 0.5: only heads that are rotated whole are covered",
    ),
    "scores with a cap": ({"attention_softcap": 50.0}, "attention_softcap 50.0 is not covered"),
    "shared layers": ({"repeats": 2}, "every layer runs 2 times; a graph would hold every shared layer more than once"),
    "experts": ({"experts": 4}, "mixtures of experts are not covered; every layer has 4"),
    "towers": (
        {"towers": ("model.visual.",)},
        "models with vision or audio towers are not covered; their text model alone would be",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_graph_is_refused_by_fact(case: str, packed: Packed, registry: Registry, tmp_path: Path) -> None:
    values, expected = REFUSED[case]
    checkpoint = packed("qwen3 4-bit g32 tied")
    checkpoint.facts = replace(checkpoint.facts, **values)
    with pytest.raises(ExportError) as caught:
        make_onnx(registry, tmp_path / "out").check(checkpoint)
    assert str(caught.value) == expected


def test_a_window_of_the_whole_graph_is_none(packed: Packed, registry: Registry, tmp_path: Path) -> None:
    checkpoint = packed("qwen3 4-bit g32 tied")
    checkpoint.facts = replace(checkpoint.facts, windows=(64, 64))
    make_onnx(registry, tmp_path / "out", context_length=64).check(checkpoint)
