"""Where quantized models and training steps differ from the original release (METHOD 10, F13 to F15, the last rows)."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from edgerazor.core.layers.embedding import make_embedding
from edgerazor.core.outputs import PositionMask, Targets
from edgerazor.core.plan import Plan
from edgerazor.core.registry import Registry
from edgerazor.distill import Distiller
from edgerazor.errors import PlanError
from tests.plugins.quantizer_cases import build

Build, Quantize = Callable[..., nn.Module], Callable[..., nn.Module]
IDS = torch.randint(0, 96, (4, 12), generator=torch.Generator().manual_seed(0))
INT4 = {"name": "int", "bits": 4, "group_size": 32}
KV_ONLY = {"weights": [{"match": "*", "quantizer": None}], "activations": None}
MIXTURE = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32}


def logits(model: Any, ids: Tensor = IDS) -> Tensor:
    with torch.no_grad():
        return model(input_ids=ids, use_cache=False).logits  # type: ignore[no-any-return]


def test_f13_what_cannot_act_is_named_and_evaluation_computes_what_training_does(
    build_model: Build, quantize_model: Quantize, plan_model: Callable[..., Plan]
) -> None:
    model: Any = build_model()
    model.fused = nn.MultiheadAttention(64, 4)
    plan = plan_model(model)
    assert not any(module.name.startswith("fused") for module in plan.modules)
    notes = [note for note in plan.notes if note.startswith("fused.")]
    assert len(notes) == 2 and all("nn.MultiheadAttention is not quantized" in note for note in notes)
    quantize_model(model)
    assert torch.equal(logits(model.train()), logits(model.eval()))
    assert not torch.equal(logits(model), logits(build_model()))


def test_f14_frozen_parameters_stay_frozen_and_hooks_stay(build_model: Build, quantize_model: Quantize) -> None:
    model, seen = build_model(), []
    frozen = model.get_submodule("model.layers.0.mlp.up_proj")
    frozen.requires_grad_(False)
    frozen.register_forward_hook(lambda module, inputs, out: seen.append(module))
    quantize_model(model)
    model(input_ids=IDS, labels=IDS).loss.backward()
    assert seen == [frozen]
    assert frozen.weight.grad is None and not frozen.weight.requires_grad
    assert model.get_parameter("model.layers.1.mlp.up_proj.weight").grad is not None


def test_f15_layer_one_is_not_layer_ten(build_model: Build, plan_model: Callable[..., Plan]) -> None:
    rules = [{"match": "model.layers.1.*", "quantizer": None}, {"match": "*", "quantizer": INT4}]
    plan = plan_model(build_model(num_hidden_layers=12), weights=rules)
    left = {module.name.split(".")[2] for module in plan.modules if module.params is None}
    assert left == {"1"}
    assert {"10", "11"} <= {module.name.split(".")[2] for module in plan.quantized if ".layers." in module.name}


def test_kv_in_generate_keys_and_values_are_quantized(build_model: Build, quantize_model: Quantize) -> None:
    """Every generated token is the likeliest one of the quantized whole pass, not of the plain model."""
    section = {**KV_ONLY, "kv_cache": {"name": "int", "bits": 2, "group_size": 16}}
    model, plain = quantize_model(build_model(), **section), build_model()
    options = {"max_new_tokens": 10, "do_sample": False, "eos_token_id": None, "attention_mask": torch.ones_like(IDS)}
    with torch.no_grad():
        generated, other = (either.generate(IDS, **options) for either in (model, plain))  # type: ignore[operator]
    assert torch.equal(logits(model, generated)[:, 11:-1].argmax(dim=-1), generated[:, 12:])
    assert not torch.equal(generated, other)


@pytest.mark.parametrize("reentrant", [True, False])
def test_kv_in_generate_gradient_checkpointing_keeps_the_quantizer(
    build_model: Build, quantize_model: Quantize, reentrant: bool
) -> None:
    def gradient(checkpointing: bool, **section: Any) -> Tensor:
        model: Any = quantize_model(build_model(), **{**KV_ONLY, **section}).train()
        if checkpointing:
            model.gradient_checkpointing_enable({"use_reentrant": reentrant})
            model.enable_input_require_grads()
        model(input_ids=IDS, labels=IDS, use_cache=False).loss.backward()
        found: Tensor = model.model.layers[0].self_attn.k_proj.weight.grad
        return found

    assert torch.equal(gradient(True), gradient(False))
    assert not torch.equal(gradient(True), gradient(True, kv_cache=None))


def test_accumulation_gives_one_gradient_however_a_step_is_split(
    registry: Registry, build_model: Build, quantize_model: Quantize
) -> None:
    student, teacher = quantize_model(build_model(seed=1)), build_model()
    losses = [registry.build(registry.params("loss", "eakld", scope="sequence"))]
    composed = Distiller(losses, task_weight=0.1, adapter=registry.adapter_for("qwen3"))
    labels = IDS.clone()
    labels[0, :9] = -100
    whole = Targets.from_labels(labels)

    def norm(size: int) -> float:
        student.zero_grad()
        for start in range(0, 4, size):
            rows = slice(start, start + size)
            masks = [
                PositionMask(mask.mask[rows], mask.positions, mask.sequences)
                for mask in (whole.tokens, whole.predictions, whole.attention)
            ]
            composed(student, teacher, {"input_ids": IDS[rows]}, Targets(labels[rows], *masks)).value.backward()
        gradients = [value.grad for value in student.parameters() if value.grad is not None]
        return float(torch.stack([gradient.norm() for gradient in gradients]).norm())

    assert norm(1) == pytest.approx(norm(4), rel=1e-4)
    assert norm(2) == pytest.approx(norm(4), rel=1e-4)


def test_silence_a_loss_without_its_input_is_refused(registry: Registry) -> None:
    losses = [registry.build(registry.params("loss", "router_z"))]
    with pytest.raises(PlanError, match="router_z: needs router_logits, which Qwen3Adapter does not give; it gives"):
        Distiller(losses, task_weight=0.1, adapter=registry.adapter_for("qwen3"))


def test_silence_a_rule_that_takes_nothing_is_refused(build_model: Build, plan_model: Callable[..., Plan]) -> None:
    rules = [{"match": "*.q_porj", "quantizer": INT4}, {"match": "*", "quantizer": INT4}]
    with pytest.raises(PlanError, match=r"weights\[0\].match: '\*.q_porj' matches no module"):
        plan_model(build_model(), weights=rules)


def test_tables_only_the_rows_that_are_looked_up_are_quantized() -> None:
    """A row that is not a number, which a quantizer lets through, is touched by no other row's look-up."""
    sizes: list[int] = []

    class Counting:
        rows_independent = True

        def fake_quantize(self, x: Tensor) -> Tensor:
            sizes.append(x.numel())
            return build("int", bits=4, group_size=32).fake_quantize(x)  # type: ignore[no-any-return]

    module = nn.Embedding(1000, 64)
    whole = build("int", bits=4, group_size=32).fake_quantize(module.weight)
    make_embedding(module, Counting())  # type: ignore[arg-type]
    ids = torch.tensor([[3, 999, 3]])
    assert torch.equal(module(ids), whole[ids]) and sizes == [3 * 64]


def test_experts_are_quantized_whole_and_their_balancing_loss_counts_once(
    registry: Registry, build_model: Build, quantize_model: Quantize, plan_model: Callable[..., Plan]
) -> None:
    mixture = build_model("qwen3_moe", **MIXTURE, output_router_logits=True, router_aux_loss_coef=0.5)
    plan = plan_model(mixture)
    assert {module.name.rpartition(".")[2] for module in plan.quantized if module.kind == "experts"} == {
        "gate_up_proj",
        "down_proj",
    }
    assert plan.coverage > 0.98
    assert any(".mlp.gate ×2 [4, 64]" in note and "cannot be quantized here" in note for note in plan.notes)
    student: Any = quantize_model(mixture)
    composed = Distiller([], task_weight=1.0, adapter=registry.adapter_for("qwen3_moe"))
    mask = torch.ones_like(IDS)
    batch = {"input_ids": IDS, "attention_mask": mask}
    result = composed(student, None, batch, Targets.from_labels(IDS, mask))
    expected = student(**batch, labels=IDS, use_cache=False)
    assert result.shares["balancing"].item() == pytest.approx(0.5 * expected.aux_loss.item(), rel=1e-4)
    assert result.value.item() == pytest.approx(expected.loss.item(), rel=1e-4)
