"""What the matrices of a layer are given: set by set, all at once, and read again from a file."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from edgerazor.calibrate.inputs import Inputs
from edgerazor.calibrate.layer_inputs import LayerInputs
from edgerazor.calibrate.stored_tensors import StoredTensors
from edgerazor.core.registry import Registry
from tests.calibrate.layer_cases import decoder_of, same_inputs

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("name", ["llama3", "mobilellm-layer-sharing", "olmo2"])
@torch.no_grad()
def test_all_at_once_are_those_of_one_set_after_another(name: str, registry: Registry, tmp_path: Path) -> None:
    decoder = decoder_of(name, registry, tmp_path)
    rows: list[Tensor] = list(decoder.begin([torch.tensor([[1, 5, 9, 2]]), torch.tensor([[7, 3]])]))
    with decoder.layer(0) as through:
        inputs = LayerInputs(decoder, 0, rows[0])
        stored = [StoredTensors(tmp_path / f"{place}.bin") for place in range(len(inputs.sets))]
        seen = []
        for row in rows:
            of_row, output = inputs.of_all(row)
            assert torch.equal(output, through(row))
            seen.append(of_row)
        for place, (together, file) in enumerate(zip(inputs.sets, stored, strict=True)):
            assert together.added == (name != "olmo2" and place % 2 == 1)
            with file.written() as add:
                for of_row in seen:
                    add(of_row[place].parts)
            for row, of_row, again in zip(rows, seen, file, strict=True):
                assert same_inputs(of_row[place], inputs.of(together, row)) and same_inputs(
                    Inputs(*again), of_row[place]
                )
                assert (len(again) == 2) == together.added
            file.remove()
            assert not (tmp_path / f"{place}.bin").exists()
    assert len(stored) == 4
