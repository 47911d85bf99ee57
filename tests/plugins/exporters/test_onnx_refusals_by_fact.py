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
    "frequencies that change with the text": (
        {"ropes": (Rope(1e4), Rope(1e4, "dynamic"))},
        "rope_type 'dynamic' has no fixed table; known: default, linear, yarn, llama3, longrope",
    ),
    "a part of a head that the operator does not take": (
        {"ropes": (None, Rope(1e4, partial=0.375))},
        "head_dim 64, 24 columns of which turn: ONNX Runtime's GroupQueryAttention takes multiples of 16; "
        "set portable to true",
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


def test_longrope_is_exported_up_to_where_it_turns_otherwise(
    packed: Packed, registry: Registry, tmp_path: Path
) -> None:
    checkpoint = packed("qwen3 4-bit g32 tied")
    rope = Rope(1e4, "longrope", scaling={"original_max_position_embeddings": 32})
    checkpoint.facts = replace(checkpoint.facts, ropes=(rope, rope))
    assert make_onnx(registry, tmp_path / "out").planned(checkpoint).context_length == 32
    make_onnx(registry, tmp_path / "out", context_length=32).check(checkpoint)
    with pytest.raises(ExportError, match=r"^context_length 33: longrope .*set context_length to 32 or less$"):
        make_onnx(registry, tmp_path / "out", context_length=33).check(checkpoint)
