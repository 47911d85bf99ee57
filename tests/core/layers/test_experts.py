"""Matrices that share one tensor are quantized as if each stood alone, in training and in a packed checkpoint."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from edgerazor.core.discovery import load_plugins
from edgerazor.core.layers.experts import FusedMatrices, PackedMatrices, QuantExperts, fused_experts
from edgerazor.core.layers.matrices import Matrices
from edgerazor.core.layers.table import find_layer, kind_named
from edgerazor.core.outputs import Targets
from edgerazor.core.packing import pack
from edgerazor.core.plan import Plan
from edgerazor.core.registry import Registry
from edgerazor.data import Collator
from edgerazor.distill import Distiller
from edgerazor.errors import PlanError

QUANTIZERS = [
    {"name": "int", "bits": 4, "group_size": 32},
    {"name": "ternary", "group_size": 16},
    {"name": "sqmp", "high_ratio": 0.125, "group_size": 32},
    {"name": "sqmp", "high_ratio": "1/3", "group_size": 32},
    {"name": "sqmp", "high_ratio": 0.25, "group_size": 32, "placement": "variance_rows"},
]
quantizers = pytest.mark.parametrize(
    "values", QUANTIZERS, ids=lambda values: "-".join(str(part) for part in values.values())
)
SIX = Matrices.along_last_axis((3, 80, 64), count=6)
MIXTURE = {"num_experts": 3, "num_experts_per_tok": 2, "moe_intermediate_size": 40, "tie_word_embeddings": False}


def weight() -> torch.Tensor:
    return torch.randn(3, 80, 64, generator=torch.Generator().manual_seed(0)).requires_grad_()


@pytest.fixture
def mixture(build_model: Callable[..., nn.Module]) -> Any:
    return build_model("qwen3_moe", **MIXTURE)


@quantizers
def test_a_block_is_quantized_as_if_it_stood_alone(registry: Registry, values: dict[str, Any]) -> None:
    """Six blocks of 40 rows: gate and up of three experts."""
    quantizer, tensor = registry.build(registry.params("quantizer", **values)), weight()
    together = SIX.quantize(quantizer, tensor.detach())
    alone = [quantizer.quantize(block) for block in tensor.detach().reshape(6, 40, 64)]
    for name in ("codes", "scale", "qmax"):
        assert torch.equal(getattr(together, name), torch.cat([getattr(matrix, name) for matrix in alone]))
    fake = SIX.fake_quantize(quantizer, tensor)
    assert torch.equal(fake, together.dequantize().reshape(3, 80, 64))
    fake.sum().backward()
    assert torch.equal(tensor.grad, torch.ones_like(tensor))


@quantizers
def test_widths_are_those_of_the_codes(registry: Registry, values: dict[str, Any]) -> None:
    quantizer, tensor = registry.build(registry.params("quantizer", **values)), weight()
    qmax = SIX.quantize(quantizer, tensor.detach()).qmax
    found = {int(width): 64 * int((qmax == width).sum()) for width in qmax.unique()}
    assert SIX.widths_of_all(quantizer.widths) == found


def test_rows_are_counted_inside_each_part(registry: Registry) -> None:
    quantizer = registry.build(registry.params("quantizer", name="sqmp", high_ratio="1/3", group_size=32))
    qmax = SIX.quantize(quantizer, weight().detach()).qmax.reshape(6, 40)
    assert all(torch.equal((part == 7).nonzero().flatten(), torch.arange(0, 40, 3)) for part in qmax)


@pytest.mark.parametrize("rows", [8, 40, 41, 64])
def test_a_quantizer_that_says_its_rows_split_is_right(registry: Registry, rows: int) -> None:
    quantizer = registry.build(registry.params("quantizer", name="sqmp", high_ratio=0.125, group_size=32))
    tensor = torch.randn(3 * rows, 64, generator=torch.Generator().manual_seed(1))
    alone = torch.cat([quantizer.quantize(block).qmax for block in tensor.split(rows)])
    assert quantizer.splits_at(rows) == torch.equal(quantizer.quantize(tensor).qmax, alone)


def test_fused_parameters_are_found_under_their_own_names(mixture: Any) -> None:
    found = dict(fused_experts(mixture))
    layers = [f"model.layers.{layer}.mlp.experts" for layer in range(2)]
    assert list(found) == [f"{layer}.{leaf}" for layer in layers for leaf in ("gate_up_proj", "down_proj")]
    parameters = dict(mixture.named_parameters())
    assert all(matrices.weight is parameters[name] for name, matrices in found.items())
    assert [kind_named("experts").matrices(matrices).count for matrices in found.values()] == [6, 3, 6, 3]
    assert isinstance(find_layer(mixture, f"{layers[0]}.down_proj"), FusedMatrices)
    assert find_layer(mixture, "lm_head") is mixture.lm_head
    assert find_layer(mixture, f"{layers[0]}.absent") is None and find_layer(mixture, "no.such.module") is None


def test_the_plan_counts_experts(mixture: Any, plan_model: Callable[..., Plan]) -> None:
    weights = [{"match": "*", "quantizer": {"name": "sqmp", "high_ratio": "1/3", "group_size": 8}}]
    plan = plan_model(mixture, weights=weights, activations=None, kv_cache=None)
    entry = next(module for module in plan.modules if module.name.endswith("0.mlp.experts.gate_up_proj"))
    assert entry.kind == "experts" and entry.shape == (3, 80, 64) and entry.parameter_name == entry.name
    assert entry.widths == {1: 6 * 26 * 64, 7: 6 * 14 * 64} and entry.weights == 3 * 80 * 64
    assert plan.parameters == sum(parameter.numel() for parameter in mixture.parameters())


def test_experts_that_no_rule_takes_are_named(mixture: Any, plan_model: Callable[..., Plan]) -> None:
    rule = {"match": "*.self_attn.*", "quantizer": {"name": "ternary", "group_size": 32}}
    notes = plan_model(mixture, weights=[rule]).notes
    assert any(note.startswith("model.layers.{0-1}.mlp.experts.down_proj ×2 [3, 64, 40]: no rule") for note in notes)


def test_shapes_that_do_not_fit_are_refused(mixture: Any, plan_model: Callable[..., Plan]) -> None:
    with pytest.raises(PlanError, match=r"experts\.down_proj: 40 columns are not a multiple of group_size 32"):
        plan_model(mixture)
    with pytest.raises(PlanError, match=r"experts\.down_proj: activations: 40 columns are not a multiple"):
        rule = {"match": "*", "quantizer": {"name": "int", "bits": 4, "group_size": 8}}
        plan_model(mixture, weights=[rule])


def test_a_replaced_forward_is_refused(mixture: Any, quantize_model: Callable[..., nn.Module]) -> None:
    experts = mixture.model.layers[0].mlp.experts
    experts.forward = experts.forward
    rule = {"match": "*", "quantizer": {"name": "int", "bits": 4, "group_size": 8}}
    with pytest.raises(PlanError, match=r"experts\.gate_up_proj: its forward was replaced"):
        quantize_model(mixture, weights=[rule], activations=None)
    assert not any(isinstance(module, QuantExperts) for module in mixture.modules())


def test_one_of_the_two_parameters_may_stay_float(mixture: Any, quantize_model: Callable[..., nn.Module]) -> None:
    rules = [{"match": "*.gate_up_proj", "quantizer": {"name": "int", "bits": 4, "group_size": 32}}]
    student = quantize_model(mixture, weights=rules, activations=None, kv_cache=None)
    experts: Any = student.get_submodule("model.layers.0.mlp.experts")
    assert set(experts.weight_quantizers) == {"gate_up_proj"} and isinstance(experts, experts.original)
    student(input_ids=torch.arange(12)[None]).logits.sum().backward()
    assert bool(experts.down_proj.grad.any()) and bool(experts.gate_up_proj.grad.any())


@quantizers
@pytest.mark.parametrize("compute", ["cached", "packed"])
def test_a_packed_matrix_is_the_block_it_was(registry: Registry, values: dict[str, Any], compute: Any) -> None:
    quantizer = registry.build(registry.params("quantizer", **values))
    quantized = SIX.quantize(quantizer, weight().detach())
    layout, tensors = pack(quantized)
    packed = PackedMatrices(layout, tensors, torch.float32, tuple(quantized.codes.shape))
    packed.count, packed.compute = 3, compute
    expected = quantized.dequantize().reshape(3, 80, 64)
    assert all(torch.equal(packed[index], expected[index]) for index in range(3))


def test_names_of_packed_experts_survive_a_save_by_transformers(
    mixture: Any, registry: Registry, plan_model: Callable[..., Plan], tmp_path: Path
) -> None:
    """transformers splits the parameters of experts when it saves, and joins them when it loads."""
    from safetensors import safe_open
    from transformers import AutoModelForCausalLM

    from edgerazor.hf import EdgeRazorConfig

    mixture.save_pretrained(tmp_path / "float")
    rule = {"match": "*.experts.*", "quantizer": {"name": "int", "bits": 4, "group_size": 8}}
    recipe = {"model": {"name_or_path": str(tmp_path / "float")}, "quantization": {"weights": [rule]}}
    config = EdgeRazorConfig(mode="packed", recipe=recipe)
    packed = AutoModelForCausalLM.from_pretrained(tmp_path / "float", quantization_config=config)
    packed.save_pretrained(tmp_path / "packed")
    with safe_open(tmp_path / "packed" / "model.safetensors", "pt") as file:
        names = {name for name in file.keys() if ".experts." in name}  # noqa: SIM118
    suffixes = {"gate_up_proj", "gate_up_proj.weight_i4", "gate_up_proj.weight_scale"}
    guard = "model.layers.0.mlp.experts.gate_up_proj"
    assert guard in names and {name[len("model.layers.0.mlp.experts.") :] for name in names} >= suffixes
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "packed")
    ids = torch.arange(12)[None]
    assert torch.equal(again(input_ids=ids).logits, packed(input_ids=ids).logits)
    plain = again.dequantize()
    assert not any(isinstance(module, QuantExperts) for module in plain.modules())
    torch.testing.assert_close(plain(input_ids=ids).logits, packed(input_ids=ids).logits, rtol=1e-5, atol=1e-5)


def test_the_balancing_loss_is_added_once_and_padding_does_not_count(build_model: Callable[..., nn.Module]) -> None:
    """Packed rows have no attention mask, so the model itself would count their padding."""
    registry = load_plugins(external=False)
    student = build_model("qwen3_moe", **MIXTURE, output_router_logits=True, router_aux_loss_coef=0.5)
    rows = [{"input_ids": ids, "labels": ids, "label_bytes": 0} for ids in ([3, 1, 4, 1, 5], [9, 2])]
    padded = Collator(0)(rows)
    packed = {key: value for key, value in padded.items() if key != "attention_mask"}
    loss = registry.build(registry.params("loss", "forward_kl"))
    adapter = registry.adapter_for("qwen3_moe")
    composed = Distiller([loss], task_weight=0.25, adapter=adapter)
    model = student(**{key: padded[key] for key in ("input_ids", "attention_mask")}, use_cache=False)
    for batch in (padded, packed):
        targets = Targets.from_labels(batch["labels"], batch["token_mask"])
        result = composed(student, student, batch, targets)
        assert result.shares["balancing"].item() == pytest.approx(0.25 * 0.5 * model.aux_loss.item(), rel=1e-5)
        parts = sum(result.shares[name] for name in ("task", "forward_kl", "balancing"))
        torch.testing.assert_close(result.value.detach(), parts)
    silent = build_model("qwen3_moe", **MIXTURE)
    assert "balancing" not in composed(silent, silent, padded, targets).shares


def test_a_gradient_of_the_whole_tensor_is_made_once(mixture: Any, quantize_model: Callable[..., nn.Module]) -> None:
    rule = {"match": "*.experts.*", "quantizer": {"name": "int", "bits": 4, "group_size": 8}}
    student = quantize_model(mixture, weights=[rule], activations=None, kv_cache=None)
    student(input_ids=torch.arange(12)[None]).logits.sum().backward()
    made: list[Any] = []

    class Count(TorchDispatchMode):
        def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            made.append(function.overloadpacket)
            return function(*args, **(kwargs or {}))

    with Count():
        student(input_ids=torch.arange(12)[None]).logits.sum().backward()
    assert torch.ops.aten.select_backward not in made
