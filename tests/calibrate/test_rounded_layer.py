"""A layer that is asked set by set gives the same bits as one that computes everything anew, and multiplies less."""

from pathlib import Path
from typing import Any

import pytest
import torch

from edgerazor.calibrate import layer_inputs
from edgerazor.calibrate.layer_inputs import LayerInputs
from edgerazor.calibrate.recorded_outputs import can_be_recorded
from edgerazor.calibrate.rounded_layer import RoundedLayer
from edgerazor.core.registry import Registry
from tests.calibrate.layer_cases import decoder_of, same_inputs

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("name", ["llama3", "mobilellm-layer-sharing", "olmo2", "phi4-mini", "qwen3_moe"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@torch.no_grad()
def test_what_is_asked_for_in_turn_is_what_the_layer_computes(
    name: str, dtype: torch.dtype, registry: Registry, tmp_path: Path
) -> None:
    decoder = decoder_of(name, registry, tmp_path, dtype)
    rows = list(decoder.begin([torch.tensor([[1, 5, 9, 2]]), torch.tensor([[7, 3]])]))
    with decoder.layer(0):
        inputs = LayerInputs(decoder, 0, rows[0])
        layer = RoundedLayer(inputs, lambda place: tmp_path / f"{place}.bin")
        assert inputs.runs_once == (name != "mobilellm-layer-sharing")
        for place, together in enumerate(inputs.sets):
            found = list(layer.inputs_of(place, rows))
            assert all(map(same_inputs, found, (inputs.of(together, row) for row in rows)))
            for matrix in inputs.matrices(together):
                matrix.weight.data = torch.round(matrix.weight.data * 20) / 20
        assert all(map(torch.equal, layer.behind(rows), map(inputs.through, rows)))
    layer.remove()
    assert not list(tmp_path.glob("*.bin"))


@torch.no_grad()
def test_rounded_matrices_are_not_multiplied_again(registry: Registry, tmp_path: Path) -> None:
    decoder = decoder_of("llama3", registry, tmp_path)
    rows = list(decoder.begin([torch.tensor([[1, 5, 9, 2]])]))
    with decoder.layer(0):
        inputs = LayerInputs(decoder, 0, rows[0])
        layer = RoundedLayer(inputs, lambda place: tmp_path / f"{place}.bin")
        for place in range(len(inputs.sets)):
            (found,) = layer.inputs_of(place, rows)
            assert all(torch.isfinite(part).all() for part in found.parts)
            if place:
                for matrix in inputs.matrices(inputs.sets[place - 1]):
                    matrix.weight.data.fill_(torch.nan)
        (behind,) = layer.behind(rows)
        assert torch.isfinite(behind).all()


@torch.no_grad()
def test_parts_that_are_rounded_are_not_run_again(registry: Registry, tmp_path: Path) -> None:
    """The attention of a layer: it is run for its own matrices, and once more to be recorded."""
    decoder = decoder_of("llama3", registry, tmp_path)
    rows = list(decoder.begin([torch.tensor([[1, 5, 9, 2]]), torch.tensor([[7, 3]])]))
    called: list[int] = []
    with decoder.layer(0):
        inputs = LayerInputs(decoder, 0, rows[0])
        layer = RoundedLayer(inputs, lambda place: tmp_path / f"{place}.bin")
        query = inputs.matrices(inputs.sets[0])[0]
        query.register_forward_hook(lambda *_: called.append(place))
        for place in range(len(inputs.sets)):
            list(layer.inputs_of(place, rows))
        place = len(inputs.sets)
        list(layer.behind(rows))
    assert [len(part) for part in (inputs.finished(0), inputs.finished(1))] == [3, 1]
    assert called == [1, 1, 2, 2]


@pytest.mark.parametrize(
    ("output", "expected"),
    [
        (torch.ones(1), True),
        ((torch.ones(1), None), True),
        ((torch.ones(1), torch.ones(1)), False),
        (None, False),
        ((torch.ones(1), 3), False),
        ({"states": torch.ones(1)}, False),
    ],
)
def test_a_tensor_alone_can_be_recorded(output: Any, expected: bool) -> None:
    assert can_be_recorded(output) is expected


@pytest.mark.parametrize("name", ["llama3", "mobilellm-layer-sharing"])
@torch.no_grad()
def test_matrices_are_recorded_where_a_part_cannot_be_or_runs_twice(
    name: str, registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if name == "llama3":
        monkeypatch.setattr(layer_inputs, "can_be_recorded", lambda output: False)
    decoder = decoder_of(name, registry, tmp_path)
    rows = list(decoder.begin([torch.tensor([[1, 5, 9, 2]])]))
    with decoder.layer(0):
        inputs = LayerInputs(decoder, 0, rows[0])
        for place, together in enumerate(inputs.sets):
            assert inputs.finished(place) == inputs.matrices(together)
