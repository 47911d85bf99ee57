"""What the matrices of a layer are given: set by set, all at once, and read again from a file."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from edgerazor.calibrate.decoder import Decoder
from edgerazor.calibrate.inputs import Inputs
from edgerazor.calibrate.layer_inputs import LayerInputs
from edgerazor.calibrate.stored_inputs import StoredInputs
from edgerazor.core.apply import apply_plan
from edgerazor.core.plan import build_plan
from edgerazor.core.registry import Registry
from edgerazor.models.load import Models
from edgerazor.schemas.recipe import load_recipe
from tests.families import family_model
from tests.runs import tokenizer

pytestmark = pytest.mark.slow


def same(first: Inputs, second: Inputs) -> bool:
    residuals = [inputs.residual for inputs in (first, second) if inputs.residual is not None]
    return torch.equal(first.rows, second.rows) and len(residuals) != 1 and (not residuals or torch.equal(*residuals))


@pytest.mark.parametrize("name", ["llama3", "mobilellm-layer-sharing", "olmo2"])
@torch.no_grad()
def test_all_at_once_are_those_of_one_set_after_another(name: str, registry: Registry, tmp_path: Path) -> None:
    family_model(name, vocab_size=len(tokenizer())).to(torch.bfloat16).save_pretrained(tmp_path / "model")
    tokenizer().save_pretrained(tmp_path / "model")
    rules = [{"match": "*.layers.*", "quantizer": {"name": "int", "bits": 4, "group_size": 32}}]
    raw = {"model": {"name_or_path": str(tmp_path / "model")}, "quantization": {"weights": rules}}
    recipe = load_recipe(raw, registry=registry)
    source = Models(recipe.model, registry).student
    model: Any = source.load(torch.float32).eval()
    plan = build_plan(model, recipe.quantization, adapter=source.adapter, registry=registry)
    apply_plan(model, plan, registry=registry)
    decoder = Decoder(model, plan, None)
    rows: list[Tensor] = list(decoder.begin([torch.tensor([[1, 5, 9, 2]]), torch.tensor([[7, 3]])]))
    with decoder.layer(0) as through:
        inputs = LayerInputs(decoder, 0, rows[0])
        stored = [StoredInputs(tmp_path / f"{place}.bin") for place in range(len(inputs.sets))]
        seen = []
        for row in rows:
            of_row, output = inputs.of_all(row)
            assert torch.equal(output, through(row))
            seen.append(of_row)
        for place, (together, file) in enumerate(zip(inputs.sets, stored, strict=True)):
            assert together.added == (name != "olmo2" and place % 2 == 1)
            with file.written() as add:
                for of_row in seen:
                    add(of_row[place])
            for row, of_row, again in zip(rows, seen, file, strict=True):
                assert same(of_row[place], inputs.of(together, row)) and same(again, of_row[place])
                assert (again.residual is not None) == together.added
            file.remove()
            assert not (tmp_path / f"{place}.bin").exists()
    assert len(stored) == 4
