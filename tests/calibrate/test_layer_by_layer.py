"""A calibration holds one layer at a time, goes on where it was stopped, and feeds every layer what the model would."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM

from edgerazor.calibrate import pack_calibrated
from edgerazor.calibrate.decoder import Decoder
from edgerazor.calibrate.gptq import calibrated_codes
from edgerazor.calibrate.inputs import damped
from edgerazor.calibrate.journal import Journal
from edgerazor.calibrate.pack import calibration_rows
from edgerazor.calibrate.walk import round_layers
from edgerazor.checkpoint import load_model
from edgerazor.core.apply import apply_plan
from edgerazor.core.plan import build_plan
from edgerazor.core.registry import Registry
from edgerazor.kernels.processor import Processor
from edgerazor.models.load import Models
from tests.calibrate.layer_cases import BFLOAT16, FLOAT32, LAYERS, StoppedError, recipe_of, stop_at, texts
from tests.families import family_model
from tests.plugins.quantizer_cases import build
from tests.runs import save_data, save_model, tokenizer

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`model`, of three layers, and `data.jsonl`."""
    folder = tmp_path_factory.mktemp("layers")
    save_model(folder / "model", num_hidden_layers=LAYERS)
    save_data(folder / "data.jsonl")
    return folder


@pytest.mark.parametrize(
    ("match", "layer", "total"),
    [
        ("*.layers.*", 1, LAYERS),
        ("*.layers.*", LAYERS, LAYERS),
        ("*", LAYERS, LAYERS + 1),
        ("*", LAYERS + 1, LAYERS + 1),
    ],
)
def test_a_stopped_run_goes_on_with_its_layer(
    match: str, layer: int, total: int, folder: Path, registry: Registry, tmp_path: Path
) -> None:
    recipe = recipe_of(folder / "model", registry, match)
    given: dict[str, Any] = {"registry": registry, "data": texts(folder), "samples": 4}
    whole = pack_calibrated(recipe, output=tmp_path / "whole", **given)
    with pytest.raises(StoppedError):
        pack_calibrated(recipe, output=tmp_path / "stopped", show=stop_at(layer, total), **given)
    assert not (tmp_path / "stopped").exists()
    shown: list[int] = []
    again = pack_calibrated(recipe, output=tmp_path / "stopped", show=lambda done, _: shown.append(done), **given)
    assert shown == list(range(layer, total + 1))
    assert again.digest == whole.digest
    assert sorted(path.name for path in tmp_path.iterdir() if "lock" not in path.name) == ["stopped", "whole"]


def test_other_rows_begin_anew(folder: Path, registry: Registry, tmp_path: Path) -> None:
    recipe, given = recipe_of(folder / "model", registry), {"registry": registry, "samples": 4}
    with pytest.raises(StoppedError):
        pack_calibrated(recipe, output=tmp_path / "out", data=texts(folder), show=stop_at(2), **given)
    shown: list[int] = []
    other = texts(folder, seed=1)
    found = pack_calibrated(
        recipe, output=tmp_path / "out", data=other, show=lambda done, _: shown.append(done), **given
    )
    assert shown[0] == 0
    assert found.digest == pack_calibrated(recipe, output=tmp_path / "fresh", data=other, **given).digest


@torch.no_grad()
def test_layers_in_bfloat16_are_nearly_as_close(folder: Path, registry: Registry, tmp_path: Path) -> None:
    recipe, given = recipe_of(folder / "model", registry), {"registry": registry, "data": texts(folder), "samples": 4}
    plain: Any = AutoModelForCausalLM.from_pretrained(folder / "model", dtype=torch.float32)
    rows = calibration_rows(Models(recipe.model, registry).student, texts(folder), 4)

    def distance(processor: Processor) -> float:
        output = tmp_path / str(processor.bfloat16)
        pack_calibrated(recipe, output=output, processor=processor, **given)
        packed: Any = load_model(output, dtype=torch.float32, registry=registry)
        return sum(float((packed(row).logits - plain(row).logits).square().mean()) for row in rows)

    assert distance(BFLOAT16) == pytest.approx(distance(FLOAT32), rel=0.2)


def test_another_processor_begins_anew(folder: Path, registry: Registry, tmp_path: Path) -> None:
    recipe = recipe_of(folder / "model", registry)
    given: dict[str, Any] = {"registry": registry, "output": tmp_path / "out", "data": texts(folder), "samples": 4}
    with pytest.raises(StoppedError):
        pack_calibrated(recipe, show=stop_at(2), processor=FLOAT32, **given)
    shown: list[int] = []
    pack_calibrated(recipe, show=lambda done, _: shown.append(done), processor=BFLOAT16, **given)
    assert shown[0] == 0


def test_a_matrix_that_is_never_used_is_rounded_as_it_is(folder: Path, registry: Registry, tmp_path: Path) -> None:
    recipe = recipe_of(folder / "model", registry)
    source = Models(recipe.model, registry).student
    model: Any = source.load(torch.float32)
    model.model.layers[1].mlp.unused = torch.nn.Linear(64, 8, bias=False)
    plan = build_plan(model, recipe.quantization, adapter=source.adapter, registry=registry)
    apply_plan(model, plan, registry=registry)
    unused, rows = model.model.layers[1].mlp.unused, calibration_rows(source, texts(folder), 2)
    expected = unused.weight_quantizer.quantize(unused.weight.detach())
    journal = Journal(tmp_path / "journal", rows, {})
    round_layers(Decoder(model, plan, None), rows, journal)
    found = journal.codes(1, "model.layers.1.mlp.unused")
    assert torch.equal(found.codes, expected.codes) and torch.equal(found.scale, expected.scale)


def test_a_model_in_memory_gives_the_same_codes(folder: Path, registry: Registry, tmp_path: Path) -> None:
    recipe = recipe_of(folder / "model", registry)
    pack_calibrated(
        recipe, registry=registry, output=tmp_path / "out", data=texts(folder), samples=4, processor=FLOAT32
    )
    source = Models(recipe.model, registry).student
    model: Any = source.load(torch.float32)
    plan = build_plan(model, recipe.quantization, adapter=source.adapter, registry=registry)
    apply_plan(model, plan, registry=registry)
    rows = calibration_rows(source, texts(folder), 4)
    journal = Journal(tmp_path / "journal", rows, {})
    round_layers(Decoder(model, plan, None), rows, journal, lambda done, total: None)
    packed: Any = load_model(tmp_path / "out", dtype=torch.float32, registry=registry)
    for index in range(LAYERS):
        for matrix in ("self_attn.q_proj", "mlp.down_proj"):
            name = f"model.layers.{index}.{matrix}"
            found = journal.codes(index, name).dequantize(torch.float32)
            assert torch.equal(found, packed.get_submodule(name).quantized().dequantize(torch.float32))


@torch.no_grad()
def test_layers_that_stay_at_16_bits_compute_too(folder: Path, registry: Registry, tmp_path: Path) -> None:
    recipe = recipe_of(folder / "model", registry, match="*.layers.2.self_attn.q_proj")
    given: dict[str, Any] = {"data": texts(folder), "samples": 4, "processor": FLOAT32}
    pack_calibrated(recipe, registry=registry, output=tmp_path / "out", **given)
    plain: Any = AutoModelForCausalLM.from_pretrained(folder / "model", dtype=torch.float32)
    matrix, moments = plain.model.layers[2].self_attn.q_proj, torch.zeros(())

    def add(_: Any, given: tuple[Tensor]) -> None:
        nonlocal moments
        x = given[0].flatten(0, 1)
        moments = moments + x.T @ x

    matrix.register_forward_pre_hook(add)
    for row in calibration_rows(Models(recipe.model, registry).student, texts(folder), 4):
        plain(row)
    expected = calibrated_codes(matrix.weight, moments, build("int", bits=3, group_size=32))
    packed: Any = load_model(tmp_path / "out", dtype=torch.float32, registry=registry)
    found = packed.model.layers[2].self_attn.q_proj.quantized()
    assert (found.codes == expected.codes).float().mean() > 0.99


SETS = (("q_proj", "k_proj", "v_proj"), ("o_proj",), ("gate_proj", "up_proj"), ("down_proj",))
# Modules that are given what the output of a matrix is added to.
STREAM = {"o_proj": "input_layernorm", "down_proj": "post_attention_layernorm"}


def inputs_of(model: Any, name: str, layer: int, rows: list[Tensor]) -> Tensor:
    """What a module of a layer is given in the whole model, float64 `[tokens, columns]`."""
    found: list[Tensor] = []
    module = in_layers(model, name)[layer]
    hook = module.register_forward_pre_hook(lambda _, given: found.append(given[0].flatten(0, 1)))
    for row in rows:
        model(row)
    hook.remove()
    return torch.cat(found).double()


def in_layers(model: Any, name: str) -> list[Any]:
    return [module for path, module in model.named_modules() if ".layers." in path and path.endswith(name)]


@pytest.mark.parametrize("name", ["llama3", "mobilellm-layer-sharing", "olmo2"])
@torch.no_grad()
def test_codes_are_those_of_whole_models_side_by_side(name: str, registry: Registry, tmp_path: Path) -> None:
    """One model stays, the other is rounded set by set: weights that make its outputs those of the first.

    OLMo 2 has norms between its matrices and its residual stream, so sums with it are out of their reach.
    """
    family_model(name, vocab_size=len(tokenizer())).to(torch.bfloat16).save_pretrained(tmp_path / "model")
    tokenizer().save_pretrained(tmp_path / "model")
    save_data(tmp_path / "data.jsonl")
    recipe = recipe_of(tmp_path / "model", registry)
    given: dict[str, Any] = {"data": texts(tmp_path), "samples": 4, "processor": FLOAT32}
    pack_calibrated(recipe, registry=registry, output=tmp_path / "out", **given)
    packed: Any = load_model(tmp_path / "out", dtype=torch.float32, registry=registry)
    source = Models(recipe.model, registry).student
    plain, other = source.load(torch.float32).eval(), source.load(torch.float32).eval()
    rows, quantizer = calibration_rows(source, texts(tmp_path), 4), build("int", bits=3, group_size=32)
    for layer in range(len(in_layers(plain, "q_proj"))):
        for names in SETS:
            wanted, own = (inputs_of(model, names[0], layer, rows) for model in (plain, other))
            stream = STREAM.get(names[0]) if name != "olmo2" else None
            for matrix in names:
                weight = in_layers(plain, matrix)[layer].weight.double()
                miss = (wanted - own) @ weight.T
                if stream is not None:
                    miss += inputs_of(plain, stream, layer, rows) - inputs_of(other, stream, layer, rows)
                damping = max(0.01, 5 * own.shape[1] / len(own))
                matched = weight + torch.linalg.solve(damped(own.T @ own, damping), own.T @ miss).T
                expected = calibrated_codes(matched.float(), (own.T @ own).float(), quantizer).dequantize(torch.float32)
                found = in_layers(packed, matrix)[layer].weight
                assert torch.isclose(found, expected, rtol=1e-3).float().mean() > 0.98
                in_layers(other, matrix)[layer].weight.copy_(found)
