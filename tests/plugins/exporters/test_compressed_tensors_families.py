"""Every family in Transformers by way of compressed-tensors, or the fact for which it is refused."""

from pathlib import Path

import pytest
import torch

pytest.importorskip("compressed_tensors")

from compressed_tensors_cases import different_weights, export, load

from edgerazor.checkpoint import PackedCheckpoint, load_model, open_checkpoint, pack_model
from edgerazor.core.registry import Registry
from edgerazor.errors import ExportError
from edgerazor.schemas.recipe import load_recipe
from tests.families import FAMILIES, family_model

pytestmark = pytest.mark.slow

PAGE = (Path(__file__).parents[3] / "docs/guide/families.md").read_text(encoding="utf-8")
SQMP = [{"match": "*", "quantizer": {"name": "sqmp", "high_ratio": 0.125, "group_size": 32}}]
NO_CLASSES = "model_type 'mobilellm': Transformers and vLLM have no classes of their own"
# By family of tests/families.py; the others are exported.
REFUSED = {
    "qwen3_moe": "mixtures of experts are not covered",
    "qwen3_moe-some-dense": "mixtures of experts are not covered",
    "mobilellm": NO_CLASSES,
    "mobilellm-layer-sharing": NO_CLASSES,
    "omni": "models with vision or audio towers are not covered",
}


def pack_family(name: str, registry: Registry, folder: Path) -> PackedCheckpoint:
    family_model(name).to(torch.bfloat16).save_pretrained(folder / "float")
    content = {"model": {"name_or_path": str(folder / "float")}, "quantization": {"weights": SQMP}}
    if name == "omni":
        content["quantization"]["weights"] = [{"match": "*.layers.*.mlp.*", "quantizer": SQMP[0]["quantizer"]}]
    pack_model(load_recipe(content, registry=registry), registry=registry, output=folder / "packed")
    return open_checkpoint(folder / "packed", registry=registry)


@pytest.mark.parametrize("name", [name for name in FAMILIES if name not in REFUSED])
def test_weights_are_equal_and_logits_are_those_of_the_student(name: str, registry: Registry, tmp_path: Path) -> None:
    checkpoint = pack_family(name, registry, tmp_path)
    export(checkpoint, tmp_path / "out")
    exported = load(tmp_path / "out")
    assert not different_weights(checkpoint, exported.state_dict())
    ids = torch.randint(3, 96, (1, 28), generator=torch.Generator().manual_seed(3))
    student = load_model(checkpoint.folder, dtype=torch.float32, dequantize=True)
    with torch.no_grad():
        found, expected = (model(input_ids=ids).logits for model in (exported, student))
    # The embedding, kept at 16 bit, is rounded to 11 bits.
    assert float((found - expected).norm() / expected.norm()) < 2e-3


@pytest.mark.parametrize("name", REFUSED)
def test_what_no_engine_loads_is_refused_by_fact(name: str, registry: Registry, tmp_path: Path) -> None:
    checkpoint = pack_family(name, registry, tmp_path)
    with pytest.raises(ExportError, match=REFUSED[name]):
        export(checkpoint, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_table_of_families_says_so() -> None:
    table = PAGE.partition("## Exports")[2].partition("\n\n")[2].partition("\n\n")[0]
    cells = [row.strip("| ").split(" | ") for row in table.splitlines()]
    column = cells[0].index("compressed-tensors")
    found = {row[0]: row[column] for row in cells[2:]}
    for family, reason in {"Qwen3 MoE": "qwen3_moe", "MobileLLM": "mobilellm", "Qwen2.5-Omni": "omni"}.items():
        assert REFUSED[reason] in found.pop(family).replace("`", "")
    assert found.pop("MobileLLM with layer sharing").startswith("refused")
    assert set(found.values()) == {"yes"}
