"""Packed tensors are the same whether transformers loads them or is passed by."""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

import edgerazor.hf  # noqa: F401 - registers the packed format
from tests.packed_cases import Student, logits, make_student


@pytest.fixture(scope="module", params=["tied", "rows-of-two-kinds"])
def packed(request: Any, build_model: Any, registry: Any, tmp_path_factory: Any) -> tuple[Path, Student]:
    folder = tmp_path_factory.mktemp(request.param)
    student = make_student(build_model, registry, folder, request.param)
    student.write(folder / "packed")
    return folder / "packed", student


@pytest.mark.parametrize("device_map", ["cpu", "auto", {"": "cpu"}, {"model": "cpu", "lm_head": "cpu"}])
def test_a_device_map_loads_the_same_tensors(device_map: Any, packed: tuple[Path, Student]) -> None:
    folder, student = packed
    model, loaded = AutoModelForCausalLM.from_pretrained(folder, device_map=device_map, output_loading_info=True)
    assert not any(loaded.values())
    assert torch.equal(logits(model), logits(student.model))
    expected = AutoModelForCausalLM.from_pretrained(folder).state_dict()
    assert list(model.state_dict()) == list(expected)
    assert all(torch.equal(tensor, expected[name]) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize("device_map", [None, "auto"])
def test_the_tensors_of_a_loaded_model_can_be_loaded_again(device_map: Any, packed: tuple[Path, Student]) -> None:
    folder, student = packed
    model = AutoModelForCausalLM.from_pretrained(folder, device_map=device_map)
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    for tensor in model.state_dict().values():
        tensor.zero_()
    model.load_state_dict(state)
    assert torch.equal(logits(model), logits(student.model))
