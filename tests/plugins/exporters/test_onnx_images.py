"""Image classifiers in ONNX Runtime: codes of the checkpoint, logits of torch, any number of images, and figures."""

import json
import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from onnx_cases import make_onnx
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from edgerazor.checkpoint import load_model, open_checkpoint, pack_model
from edgerazor.core.registry import Registry
from edgerazor.errors import ExportError
from edgerazor.evaluate.checkpoints import evaluate_checkpoint
from edgerazor.evaluate.exported import evaluate_exported
from edgerazor.evaluate.held_out import evaluation_settings
from edgerazor.inference.open_runtime import open_exported, open_runtime
from edgerazor.models.types import auto_class
from edgerazor.plugins.exporters.onnx.attention import WITHOUT_CACHE, register
from edgerazor.schemas.recipe import load_recipe
from edgerazor.testing import check_exporter
from tests.adapters.image_models import image_config
from tests.commands import fail, succeed
from tests.data.pictures import processor, save_folder

pytestmark = pytest.mark.slow
pytest.importorskip("onnxruntime")
ir = pytest.importorskip("onnx_ir")

SIDES = {"vit": 8, "deit": 8, "beit": 8, "resnet": 32, "resnet-bottleneck": 32}
# Wide rows in no fixed period.
SCATTERED = {"name": "sqmp", "high_ratio": 0.25, "placement": "variance_rows", "group_size": 32}
CASES: dict[str, tuple[str, Any]] = {
    **{f"vit {preset}": ("vit", preset) for preset in ("4-bit", "2.79-bit", "1.88-bit", "1.58-bit")},
    **{f"resnet {preset}": ("resnet", preset) for preset in ("4-bit", "2.79-bit", "1.88-bit", "1.58-bit")},
    "deit, scattered rows": ("deit", SCATTERED),
    "beit 1.88-bit": ("beit", "1.88-bit"),
    "bottlenecks, scattered rows": ("resnet-bottleneck", SCATTERED),
}
Exported = Callable[..., tuple[Path, Path]]


def save_teacher(name: str, folder: Path) -> Path:
    """A random model whose weights, batch norms and relative positions are far from their start."""
    short = {"depths": [1], "embedding_size": 32, "hidden_sizes": [64]}
    encoder = {"num_hidden_layers": 1, "initializer_range": 0.3}
    config = image_config(name, **(short if name.startswith("resnet") else encoder))
    torch.manual_seed(1)
    model = auto_class(config).from_config(config).eval()
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.3)
            module.running_var.uniform_(0.5, 2)
    for place, parameter in model.named_parameters():
        if place.endswith("relative_position_bias_table"):
            torch.nn.init.normal_(parameter)
    model.save_pretrained(folder)
    processor(SIDES[name]).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def exported(registry: Registry, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """`exported(case, **settings)`: the folder and its checkpoint; each is made once."""

    @cache
    def make(case: str, **settings: Any) -> tuple[Path, Path]:
        name, body = CASES[case]
        root = tmp_path_factory.mktemp("images")
        quantization = {"preset": body} if isinstance(body, str) else {"quantization": _everywhere(body)}
        model = {"name_or_path": str(save_teacher(name, root / "teacher"))}
        recipe = load_recipe({"model": model, **quantization, "distillation": None}, registry=registry)
        pack_model(recipe, registry=registry, output=root / "packed")
        make_onnx(registry, root / "out", **settings).export(open_checkpoint(root / "packed"), root / "out")
        return root / "out", root / "packed"

    return make


def _everywhere(body: dict[str, Any]) -> dict[str, Any]:
    return {"weights": [{"match": "*", "quantizer": body}], "fit": ["weights"]}


def images(name: str, count: int) -> torch.Tensor:
    width = SIDES[name] + (17 if name.startswith("resnet") else 0)
    return torch.randn(count, 1, SIDES[name], width, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("case", CASES)
def test_level_0_computes_as_torch_for_any_number_of_images(case: str, exported: Exported, registry: Registry) -> None:
    path, folder = exported(case, accuracy_level=0)
    checkpoint = open_checkpoint(folder)
    result = make_onnx(registry, path).verify(path, checkpoint)
    assert result.different == () and result.tensors
    model: Any = load_model(folder, dtype=torch.float32, dequantize=True, registry=registry)
    runtime: Any = open_exported(path, registry=registry)
    for count in (1, 3):
        pixels = images(CASES[case][0], count)
        with torch.no_grad():
            expected = model(pixel_values=pixels).logits.numpy()
        found = runtime.classify(pixels.numpy())
        assert np.linalg.norm(found - expected) < 5e-6 * np.linalg.norm(expected)
    runtime.close()


@pytest.mark.parametrize("mask", [None, torch.linspace(-1, 1, 50).view(1, 2, 5, 5), torch.ones(5, 5).tril().bool()])
def test_attention_over_patches_is_that_of_torch(mask: torch.Tensor | None) -> None:
    register()
    query, key, value = torch.randn(3, 4, 2, 5, 8, generator=torch.Generator().manual_seed(0))
    ours, _ = ALL_ATTENTION_FUNCTIONS[WITHOUT_CACHE](torch.nn.Module(), query, key, value, mask, scaling=0.25)
    expected = torch.nn.functional.scaled_dot_product_attention(query, key, value, mask, scale=0.25)
    torch.testing.assert_close(ours, expected.transpose(1, 2))


@pytest.mark.parametrize("name", ["vit", "resnet"])
def test_the_laws_of_exporters_hold(name: str, exported: Exported, registry: Registry) -> None:
    _, packed = exported(f"{name} 1.88-bit", accuracy_level=0)
    check_exporter(registry.params("exporter", "onnx", path="folder"), checkpoint=packed, registry=registry)


def test_codes_of_convolutions_are_as_wide_as_they_are(exported: Exported) -> None:
    path, _ = exported("resnet 1.88-bit", accuracy_level=0)
    graph = ir.load(path / "model.onnx").graph
    kinds = {str(value.dtype) for name, value in graph.initializers.items() if name.endswith(".codes")}
    assert {"INT2", "INT4"} <= kinds
    operators = {node.op_type for node in graph}
    assert {"MatMulNBits", "Conv", "BatchNormalization"} <= operators and "DequantizeLinear" not in operators
    wide, _ = exported("resnet 1.58-bit", ternary_storage="4bit")
    graph = ir.load(wide / "model.onnx").graph
    assert not any(str(value.dtype) == "INT2" for value in graph.initializers.values())


def test_damage_is_found(exported: Exported, registry: Registry, tmp_path: Path) -> None:
    sound, folder = exported("resnet 1.88-bit", accuracy_level=0)
    path = shutil.copytree(sound, tmp_path / "damaged")
    model = ir.load(path / "model.onnx")
    first, *_, last = (node for node in model.graph if node.op_type == "Mul")
    first.replace_input_with(1, last.inputs[1])
    ir.save(model, path / "model.onnx", external_data="model.onnx.data")
    assert make_onnx(registry, path).verify(path, open_checkpoint(folder)).different


def test_the_command_exports_verifies_and_measures(registry: Registry, tmp_path: Path) -> None:
    teacher, pictures = save_teacher("resnet", tmp_path / "teacher"), save_folder(tmp_path / "pictures", 4, ("0", "1"))
    data = {"task": "image_classification", "sources": str(tmp_path / "none"), "held_out": [str(pictures)]}
    raw = {"model": {"name_or_path": str(teacher)}, "preset": "1.88-bit", "data": data}
    recipe = load_recipe({**raw, "evaluation": {"batch_size": 3}}, registry=registry)
    pack_model(recipe, registry=registry, output=tmp_path / "packed")
    (tmp_path / "none" / "0").mkdir(parents=True)
    shutil.copy(pictures / "0" / "00.png", tmp_path / "none" / "0")
    out = tmp_path / "out"
    said = succeed("export", tmp_path / "packed", "--to", "onnx", "--output", out)
    assert "images of any height and width" in said.replace("\n", " ")
    succeed("verify", out, "--against", tmp_path / "packed")
    assert json.loads((out / "preprocessor_config.json").read_text())["size"] == {"height": 32, "width": 32}
    assert "classifies images" in fail("generate", out, "--prompt", "x")
    ours = evaluate_checkpoint(tmp_path / "packed", registry=registry)
    theirs = evaluate_exported(out, registry=registry)
    assert (theirs.tokens, theirs.top1, theirs.top5) == (ours.tokens, ours.top1, ours.top5)
    for figure in ("loss", "kl_teacher", "teacher_loss"):
        assert getattr(theirs, figure) == pytest.approx(getattr(ours, figure), rel=0.05, abs=2e-3)
    assert "top1" in succeed("evaluate", out)
    with pytest.raises(ExportError, match="classifies images; expected a language model"):
        open_runtime(out, registry=registry)


def test_pictures_that_are_given_are_read_as_such(exported: Exported, registry: Registry, tmp_path: Path) -> None:
    path, _ = exported("vit 4-bit", accuracy_level=0)
    section, _ = evaluation_settings(path, save_folder(tmp_path / "pictures", 1), registry=registry)
    assert section is not None and section.task == "image_classification"


def test_standard_operators_alone(exported: Exported, registry: Registry) -> None:
    path, folder = exported("vit 1.88-bit", portable=True)
    graph = ir.load(path / "model.onnx").graph
    assert {node.domain for node in graph} == {""}
    assert make_onnx(registry, path, portable=True).verify(path, open_checkpoint(folder)).different == ()


def test_what_is_for_texts_is_refused(exported: Exported, registry: Registry, tmp_path: Path) -> None:
    _, folder = exported("vit 4-bit", accuracy_level=0)
    exporter = make_onnx(registry, tmp_path / "out", logits="last", context_length=8)
    with pytest.raises(ExportError, match=r"logits last: .*\ncontext_length 8: "):
        exporter.check(open_checkpoint(folder))
