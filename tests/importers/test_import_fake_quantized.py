"""16-bit weights that were rounded to a grid before they were saved: codes and scales are found again, or refused."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch import Tensor

from edgerazor.checkpoint import load_model, open_checkpoint
from edgerazor.core.registry import Registry
from edgerazor.errors import CheckpointError
from edgerazor.importers import fake_quantized, import_folder
from edgerazor.importers.fake_quantized import FakeQuantized, recover
from edgerazor.importers.formats import Folder
from tests.commands import fail, succeed
from tests.importers.foreign import edit_weights, write_folder

pytestmark = pytest.mark.slow
GOLDEN = Path(__file__).parents[1] / "golden"
QUANTIZERS: list[dict[str, Any]] = [
    {"name": "ternary"},
    {"name": "int", "bits": 4},
    {"name": "int", "bits": 4, "symmetric": False},
    {"name": "int", "bits": 4, "symmetric": False, "scale": "signed_absmax"},
    {"name": "sqmp", "high_ratio": 0.25},
    {"name": "int", "bits": 8},
]


def rounded(registry: Registry, weight: Tensor, quantizer: dict[str, Any], group_size: int) -> Tensor:
    """What a trainer that computes in bfloat16 saves: codes times bfloat16 scales."""
    params = registry.params("quantizer", **quantizer, group_size=group_size, scale_dtype="float16_bfloat16")
    return registry.build(params).quantize(weight.float()).dequantize(torch.bfloat16)


@settings(max_examples=30)
@given(
    quantizer=st.sampled_from(QUANTIZERS),
    group_size=st.sampled_from([32, 64, 128]),
    columns=st.sampled_from([128, 256]),
    seed=st.integers(0, 2**32 - 1),
    exponent=st.integers(-6, 2),
)
def test_every_value_is_found_again(
    registry: Registry, quantizer: dict[str, Any], group_size: int, columns: int, seed: int, exponent: int
) -> None:
    x = torch.randn(16, columns, generator=torch.Generator().manual_seed(seed)) * 2.0**exponent
    weight = rounded(registry, x, quantizer, group_size)
    found = recover(weight)
    assert found is not None and found.group_size >= group_size
    assert torch.equal(found.dequantize(torch.bfloat16), weight)


@pytest.mark.parametrize("seed", range(5))
def test_weights_that_were_never_rounded_lie_on_no_grid(seed: int) -> None:
    x = torch.randn(8, 64, generator=torch.Generator().manual_seed(seed))
    assert recover(x.bfloat16()) is None and recover(x.half()) is None


def original_outputs() -> list[Any]:
    """bfloat16 outputs of the original release's weight quantizers."""
    cases = json.loads((GOLDEN / "manifest.json").read_text(encoding="utf-8"))["quantizers"]
    known = [case for case in cases["cases"] if case.get("dtype") == "torch.bfloat16" and "weight" in case["function"]]
    return [pytest.param(cases["file"], case["output"], id=case["id"]) for case in known]


@pytest.mark.parametrize(("file", "output"), original_outputs())
def test_what_the_original_release_computed_is_found_again(file: str, output: str) -> None:
    weight = load_file(GOLDEN / file)[output]
    found = recover(weight)
    assert found is not None and torch.equal(found.dequantize(torch.bfloat16), weight)


def student(folder: Path, registry: Registry, **values: Any) -> Path:
    def store(name: str, weight: Tensor) -> dict[str, Tensor]:
        return {f"{name}.weight": rounded(registry, weight, {"name": "sqmp", "high_ratio": 0.125}, 32)}

    return write_folder(folder, None, store, num_hidden_layers=1, **values)


def test_a_student_becomes_a_packed_checkpoint_of_its_size(registry: Registry, tmp_path: Path) -> None:
    source = student(tmp_path / "student", registry)
    said = succeed(
        *("import", source, "--output", tmp_path / "packed", "--unquantized", "*embed_tokens"),
        *("--unquantized", "lm_head", "--set", "quantization.activations={name: int, bits: 8, group_size: 32}"),
    )
    assert "note: how activations, keys and values were quantized the files do not say" in said
    checkpoint = open_checkpoint(tmp_path / "packed")
    quantization = checkpoint.recipe["quantization"]
    assert quantization["activations"]["bits"] == 8
    assert {rule["quantizer"]["name"] for rule in quantization["weights"]} == {"sqmp"}
    model: Any = load_model(tmp_path / "packed", dequantize=True, dtype=torch.bfloat16)
    before = load_file(source / "model.safetensors")
    assert all(torch.equal(model.state_dict()[name], value) for name, value in before.items())


@pytest.mark.parametrize("quantizer", QUANTIZERS, ids=str)
def test_a_grid_is_searched_for_once(
    quantizer: dict[str, Any], registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def store(name: str, weight: Tensor) -> dict[str, Tensor]:
        return {f"{name}.weight": rounded(registry, weight, quantizer, 32)}

    reader = FakeQuantized(Folder(write_folder(tmp_path, None, store, num_hidden_layers=1)), ("*embed*", "lm_head"))
    first = {module: reader.read(module) for module in reader.modules()}
    monkeypatch.setattr(fake_quantized, "recover", None)
    for module, found in first.items():
        again = reader.read(module)
        assert again.group_size == found.group_size
        assert all(torch.equal(getattr(again, part), getattr(found, part)) for part in ("codes", "scale", "qmax"))


def test_a_tied_head_goes_with_its_embedding(registry: Registry, tmp_path: Path) -> None:
    source = student(tmp_path / "student", registry, tie_word_embeddings=True)
    name = "model.embed_tokens.weight"

    def edit(tensors: dict[str, Tensor]) -> None:
        tensors[name] = rounded(registry, tensors[name], {"name": "int", "bits": 4}, 64)

    edit_weights(source, edit)
    import_folder(source, registry=registry, output=tmp_path / "packed")
    model: Any = load_model(tmp_path / "packed", dequantize=True, dtype=torch.bfloat16)
    assert torch.equal(model.lm_head.weight, load_file(source / "model.safetensors")[name])
    assert model.lm_head.weight is model.model.embed_tokens.weight


def test_a_matrix_off_the_grid_is_named(registry: Registry, tmp_path: Path) -> None:
    source = student(tmp_path / "student", registry)
    with pytest.raises(CheckpointError) as raised:
        import_folder(source, registry=registry, output=tmp_path / "packed")
    assert "lm_head.weight: its values lie on no grid of 2 to 8 bits with float16 scales" in str(raised.value)
    message = fail("import", source, "--output", tmp_path / "packed", "--unquantized", "*.head")
    assert message.endswith("--unquantized *.head: matches no matrix\n")
    message = fail("import", tmp_path / "absent", "--output", tmp_path / "packed")
    assert str(tmp_path / "absent" / "config.json") in message and message.count("\n") == 1
