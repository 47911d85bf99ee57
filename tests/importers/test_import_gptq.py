"""GPTQ folders become packed checkpoints of the same values."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from edgerazor.checkpoint import open_checkpoint
from edgerazor.core.registry import Registry
from edgerazor.errors import CheckpointError
from edgerazor.importers import import_folder
from tests.commands import fail, succeed
from tests.importers.foreign import GROUP, edit_weights, gptq_tensors, symmetric_codes, write_folder

pytestmark = pytest.mark.slow
Q = "model.layers.0.self_attn.q_proj"


def section(bits: int, **values: Any) -> dict[str, Any]:
    return {"quant_method": "gptq", "bits": bits, "group_size": GROUP, "sym": True, "desc_act": False, **values}


def folder_of(path: Path, bits: int = 4, **values: Any) -> Path:
    below = 0 if values.get("checkpoint_format") == "gptq_v2" else 1
    return write_folder(
        path, section(bits, **values), lambda name, weight: gptq_tensors(name, weight, bits, below), **TINIER
    )


TINIER = {"num_hidden_layers": 1}


@pytest.mark.parametrize(("bits", "form"), [(4, "gptq"), (4, "gptq_v2"), (2, "gptq"), (3, "gptq"), (8, "gptq")])
def test_codes_and_scales_are_those_of_the_file(bits: int, form: str, registry: Registry, tmp_path: Path) -> None:
    source = folder_of(tmp_path / "gptq", bits, checkpoint_format=form)
    import_folder(source, registry=registry, output=tmp_path / "packed")
    checkpoint = open_checkpoint(tmp_path / "packed")
    write_folder(tmp_path / "before", None, lambda name, weight: {f"{name}.weight": weight}, **TINIER)
    before = load_file(tmp_path / "before/model.safetensors")
    for name, weight in before.items():
        found: Any = checkpoint.read(name)
        if ".layers." in name and weight.ndim == 2:
            codes, scale = symmetric_codes(weight, bits, torch.float16)
            assert torch.equal(found.codes, codes) and torch.equal(found.scale, scale)
        else:
            assert torch.equal(found, weight)


def test_the_command_writes_what_every_other_command_takes(tmp_path: Path) -> None:
    source = folder_of(tmp_path / "gptq")
    said = succeed("import", source, "--output", tmp_path / "packed")
    assert "bits per quantized weight with scales" in said
    succeed("verify", tmp_path / "packed")
    succeed("generate", tmp_path / "packed", "--prompt", "def", "--max-new-tokens", "3")
    assert not list(tmp_path.glob(".importing-*"))


def test_a_folder_without_a_tokenizer_says_so(registry: Registry, tmp_path: Path) -> None:
    source = folder_of(tmp_path / "gptq")
    for file in source.glob("tokenizer*"):
        file.unlink()
    notes = import_folder(source, registry=registry, output=tmp_path / "packed").notes
    assert f"{source}: has no tokenizer, so {tmp_path / 'packed'} has none either" in notes


def scramble(tensors: dict[str, Tensor]) -> None:
    tensors[f"{Q}.g_idx"] = tensors[f"{Q}.g_idx"].flip(0)


def shift(tensors: dict[str, Tensor]) -> None:
    tensors[f"{Q}.qzeros"] = tensors[f"{Q}.qzeros"] + 1


def shrink(tensors: dict[str, Tensor]) -> None:
    tensors[f"{Q}.scales"][1, 3] = 1e-6


def lose(tensors: dict[str, Tensor]) -> None:
    del tensors[f"{Q}.scales"]


def cut(tensors: dict[str, Tensor]) -> None:
    tensors[f"{Q}.qweight"] = tensors[f"{Q}.qweight"][:, :-1]


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        (scramble, f"{Q}.g_idx: columns are ordered by their activations"),
        (shift, f"{Q}.qweight: has zero points"),
        (shrink, f"{Q}.qweight: the scale 1.01328e-06 of row 3, group 1 is no float16 number of magnitude"),
        (lose, f"{Q}.scales: is missing"),
        (cut, f"{Q}.qweight: [8, 63] does not go with scales [2, 64]"),
    ],
)
def test_what_cannot_be_held_is_named(edit: Any, said: str, registry: Registry, tmp_path: Path) -> None:
    source = folder_of(tmp_path / "gptq")
    edit_weights(source, edit)
    with pytest.raises(CheckpointError) as raised:
        import_folder(source, registry=registry, output=tmp_path / "packed")
    assert said in str(raised.value) and not (tmp_path / "packed").exists()


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"bits": 5}, "quantization_config.bits: is 5; expected 2, 3, 4 or 8"),
        ({"checkpoint_format": "marlin"}, "quantization_config.checkpoint_format: is 'marlin'; expected gptq or"),
        ({"quant_method": "awq"}, "quantization_config.quant_method: is 'awq'; what can be imported are"),
    ],
)
def test_other_formats_are_one_line_and_exit_code_two(values: dict[str, Any], said: str, tmp_path: Path) -> None:
    source = write_folder(
        tmp_path / "gptq", {**section(4), **values}, lambda name, weight: {f"{name}.weight": weight}, **TINIER
    )
    message = fail("import", source, "--output", tmp_path / "packed")
    assert said in message and message.count("\n") == 1
