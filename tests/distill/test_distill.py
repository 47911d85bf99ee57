"""The composed step: every term reaches the student, and the total is what its parts say."""

import os
from unittest.mock import patch

import pytest
import torch
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode

from edgerazor.core.contracts import DistillationLoss, Signal
from edgerazor.core.discovery import load_plugins
from edgerazor.core.layers.linear import QuantLinear
from edgerazor.core.layers.weight_cache import cached_weights
from edgerazor.core.outputs import LossOutput, ModelOutput, Targets
from edgerazor.distill import Distiller
from edgerazor.errors import PlanError
from edgerazor.kernels.dispatch import SETTING
from edgerazor.schemas.distillation import DistillationSection
from tests.distill.distillers import distiller
from tests.processors import PROCESSORS, name

EAKLD = {"name": "eakld", "weight": 2.0, "scope": "sequence"}
EXPERTS = {"qwen3": {}, "qwen3_moe": {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32}}
FEATURES = {"name": "feature_mse", "weight": 0.5, "layers": {"name": "lafd", "top_k": 1}}


class ProductsWith(TorchDispatchMode):
    """How many matrix products took the memory of one weight."""

    def __init__(self, weight):
        super().__init__()
        self.address, self.products = weight.data_ptr(), 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if function.overloadpacket in (torch.ops.aten.mm, torch.ops.aten.addmm):
            self.products += any(
                isinstance(argument, torch.Tensor) and argument.data_ptr() == self.address for argument in args
            )
        return function(*args, **(kwargs or {}))


def test_without_losses_the_total_is_the_cross_entropy(registry, pair, batch):
    student, _ = pair
    result = distiller(registry, [], 1.0)(student, None, batch, Targets.from_labels(batch["labels"]))
    logits = student(input_ids=batch["input_ids"]).logits[:, :-1]
    expected = functional.cross_entropy(logits.flatten(0, 1), batch["labels"][:, 1:].flatten())
    torch.testing.assert_close(result.value, expected, rtol=1e-5, atol=1e-6)


def test_the_fused_total_equals_the_losses_called_one_by_one(registry, pair, batch):
    student, teacher = pair
    losses = [EAKLD, {"name": "forward_kl", "weight": 0.3, "temperature": 2.0}, FEATURES]
    composed = distiller(registry, losses)
    targets = Targets.from_labels(batch["labels"])
    signals = {Signal.LOGITS, Signal.HIDDEN_STATES}
    outputs = [composed.adapter.forward(model, batch, signals) for model in (student, teacher)]
    parts = [loss(*outputs, targets).value for loss in composed.losses]
    logits = outputs[0].logits[:, :-1].flatten(0, 1)
    task = functional.cross_entropy(logits, batch["labels"][:, 1:].flatten())
    total = composed(student, teacher, batch, targets)
    torch.testing.assert_close(total.value, sum(parts) + 0.1 * task, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(total.shares["eakld"], parts[0].detach(), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(total.shares["feature_mse"], parts[2].detach(), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(sum(total.shares[name] for name in ("task", *composed.names)), total.value.detach())
    own = {f"feature_mse/layer_{layer}" for layer in range(3)}
    assert set(total.shares) == {"task", "eakld", "forward_kl", "feature_mse", *own}
    assert {"eakld/gamma", "eakld/reverse_kl", "feature_mse/chosen_0"} <= set(total.metrics)


@pytest.mark.parametrize(("mib", "products"), [(None, 1), (0, 2)])
def test_the_budget_decides_whether_teacher_logits_are_computed_twice(registry, pair, batch, mib, products):
    student, teacher = pair
    loss = {"name": "eakld", "weight": 1.0}
    section = DistillationSection.model_validate(
        {"losses": [loss], **({} if mib is None else {"teacher_logits_mib": mib})}, context={"registry": registry}
    )
    composed = Distiller.from_recipe(section, registry=registry, adapter=registry.adapter_for("qwen3"))
    targets = Targets.from_labels(batch["labels"])
    with ProductsWith(teacher.get_output_embeddings().weight) as counted:
        total = composed(student, teacher, batch, targets)
    assert counted.products == products
    expected = distiller(registry, [loss])(student, teacher, batch, targets)
    torch.testing.assert_close(total.value, expected.value, rtol=0, atol=0)


@pytest.mark.parametrize("checkpointing", [False, True], ids=["kept", "recomputed"])
@pytest.mark.parametrize("name", load_plugins(external=False).names("loss"))
def test_every_loss_alone_reaches_the_student(registry, build_model, quantize_model, batch, name, checkpointing):
    """Through the total, also where gradient checkpointing computes the layers again."""
    family = "qwen3_moe" if name == "router_z" else "qwen3"
    student, teacher = build_model(family, seed=1, **EXPERTS[family]), build_model(family, seed=0, **EXPERTS[family])
    student = quantize_model(student, attentions=True).train(checkpointing)
    teacher.set_attn_implementation("eager")
    if checkpointing:
        student.gradient_checkpointing_enable()
    layers = {"layers": {"name": "all"}} if "layers" in registry.declared("loss", name).model_fields else {}
    composed = distiller(registry, [{"name": name, **layers}], 0.0, family)
    composed(student, teacher, batch, Targets.from_labels(batch["labels"])).value.backward()
    for layer in student.model.layers:
        found = (projection.weight.grad for projection in (layer.self_attn.k_proj, layer.self_attn.v_proj))
        assert any(gradient is not None and bool(gradient.any()) for gradient in found)
    assert all(parameter.grad is None for parameter in teacher.parameters())


def test_a_plain_loss_on_logits_takes_part(registry, pair, batch):
    class LogitMSE(DistillationLoss):
        signals = frozenset({Signal.LOGITS})

        def __call__(self, student, teacher, targets):
            difference = (student.logits - teacher.logits).square().mean(dim=-1)
            return LossOutput((difference * targets.predictions.shares("token_mean")).sum())

    student, teacher = pair
    composed = Distiller(
        [LogitMSE(registry.params("loss", "forward_kl"))], task_weight=0.0, adapter=registry.adapter_for("qwen3")
    )
    result = composed(student, teacher, batch, Targets.from_labels(batch["labels"]))
    mask = Targets.from_labels(batch["labels"]).predictions.mask
    logits = [model(input_ids=batch["input_ids"]).logits for model in (student, teacher)]
    torch.testing.assert_close(result.value, (logits[0] - logits[1]).square().mean(dim=-1)[mask].mean())
    result.value.backward()
    assert student.model.embed_tokens.weight.grad.norm() > 0


def test_micro_batches_add_up_to_the_whole_batch(registry, pair, batch):
    student, teacher = pair
    composed = distiller(registry, [EAKLD, {**FEATURES, "layers": {"name": "fixed", "layers": [1, 2]}}])
    whole = Targets.from_labels(batch["labels"])
    total = composed(student, teacher, batch, whole).value.detach()
    parts = torch.zeros(())
    for row in range(3):
        one = {key: value[row : row + 1] for key, value in batch.items()}
        masks = [
            type(mask)(mask.mask[row : row + 1], mask.positions, mask.sequences)
            for mask in (whole.tokens, whole.predictions, whole.attention)
        ]
        parts += composed(student, teacher, one, Targets(one["labels"], *masks)).value.detach()
    torch.testing.assert_close(parts, total, rtol=1e-5, atol=1e-6)


def test_a_batch_without_predictions_gives_the_same_names_and_finite_figures(registry, pair, batch):
    composed = distiller(registry, [EAKLD, FEATURES])
    some = composed(*pair, batch, Targets.from_labels(batch["labels"]))
    none = composed(*pair, batch, Targets.from_labels(torch.full_like(batch["labels"], -100)))
    assert list(none.shares) == list(some.shares) and list(none.metrics) == list(some.metrics)
    assert float(none.value.detach()) == 0
    assert all(bool(torch.isfinite(figure)) for figure in (*none.shares.values(), *none.metrics.values()))


def test_rows_found_beforehand_change_nothing(registry, pair, batch):
    composed, targets = distiller(registry, [EAKLD, FEATURES]), Targets.from_labels(batch["labels"])
    rows = targets.predictions.mask.flatten().nonzero().squeeze(-1)
    found, expected = (composed(*pair, given, targets) for given in ({**batch, "prediction_rows": rows}, batch))
    assert torch.equal(found.value, expected.value)
    fewer = composed(*pair, {**batch, "prediction_rows": rows[1:]}, targets)
    assert not torch.equal(fewer.value, expected.value)


@pytest.mark.parametrize("signal", [Signal.ROUTER_LOGITS])
def test_a_loss_whose_signal_nobody_computes_is_refused(registry, signal):
    class Unfed(DistillationLoss):
        signals = frozenset({Signal.LOGITS, signal})

        def __call__(self, student, teacher, targets): ...

    with pytest.raises(PlanError, match=f"^forward_kl: needs {signal.value}, which Qwen3Adapter does not give; it"):
        Distiller(
            [Unfed(registry.params("loss", "forward_kl"))], task_weight=0.0, adapter=registry.adapter_for("qwen3")
        )


def test_under_autocast_only_the_operands_of_the_logits_are_rounded(registry, pair, batch):
    """The student's logits keep float32, and the head of a float32 teacher is not rounded."""
    student, teacher = pair
    composed, targets = distiller(registry, [{"name": "forward_kl"}], 0.5), Targets.from_labels(batch["labels"])
    seen = {}
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = composed(student, teacher, batch, targets).value
        for name, model in (("student", student), ("teacher", teacher)):
            output = composed.adapter.forward(model, batch, frozenset())
            seen[name] = output.head.input(output.final_hidden).detach(), output.head.weight.detach()
    z = torch.nn.functional.linear(*(part.bfloat16().double() for part in seen["student"]))
    u = torch.nn.functional.linear(*(part.double() for part in seen["teacher"]))
    log_q, log_p = z.log_softmax(dim=-1), u.log_softmax(dim=-1)
    divergence = (log_p.exp() * (log_p - log_q)).sum(dim=-1)
    expected = (divergence * targets.predictions.shares("sequence_mean")).sum()
    logits = z[:, :-1].flatten(0, 1)
    expected = expected + 0.5 * functional.cross_entropy(logits, batch["labels"][:, 1:].flatten())
    torch.testing.assert_close(value.detach().double(), expected, rtol=1e-5, atol=0)


def test_jsd_rounds_under_autocast_no_more_than_the_fused_pass(registry, pair, batch):
    student, teacher = pair
    composed, targets = distiller(registry, [{"name": "jsd"}], 0.0), Targets.from_labels(batch["labels"])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = composed(student, teacher, batch, targets).value
        outputs = [composed.adapter.forward(model, batch, frozenset()) for model in (student, teacher)]
        parts = [(output.head.input(output.final_hidden).detach(), output.head.weight.detach()) for output in outputs]
    z = functional.linear(*(part.bfloat16().double() for part in parts[0]))
    u = functional.linear(*(part.double() for part in parts[1]))
    exact = [ModelOutput.from_logits(logits) for logits in (z, u)]
    expected = composed.losses[0](*exact, targets).value
    torch.testing.assert_close(value.detach().double(), expected, rtol=1e-5, atol=0)


WIDE = {
    "weights": [
        {"match": ["*.embed_tokens", "lm_head"], "quantizer": {"name": "int", "bits": 4, "group_size": 256}},
        {"match": "*", "quantizer": {"name": "sqmp", "high_ratio": 0.125, "group_size": 256}},
    ],
    "activations": {"name": "int", "bits": 8, "group_size": 256},
}


@pytest.mark.slow
@pytest.mark.parametrize("processor", PROCESSORS, ids=name)
@pytest.mark.parametrize("kind", ["tied", "untied", "tied, autocast"])
def test_a_model_whose_layers_and_head_multiply_codes_has_the_losses_of_values(
    registry, build_model, quantize_model, batch, kind, processor
):
    """One layer: in a deeper model a code that lies on an edge may flip."""
    autocast = "autocast" in kind
    shape = {"hidden_size": 256, "intermediate_size": 512, "num_hidden_layers": 1, "head_dim": 64}
    shape["tie_word_embeddings"] = kind != "untied"
    teacher, student = (build_model(seed=seed, initializer_range=0.05, **shape) for seed in (0, 1))
    quantize_model(student, **WIDE)
    for layer in student.modules():
        if isinstance(layer, QuantLinear):
            layer.processor = processor
    of_codes = processor.vnni and not (autocast and processor.bfloat16)
    losses = [{"name": "eakld", "weight": 2.0}, {"name": "jsd", "weight": 0.5}]
    composed, targets = distiller(registry, losses), Targets.from_labels(batch["labels"])
    found = []
    for setting in ("auto", "reference"):
        student.zero_grad()
        with (
            patch.dict(os.environ, {SETTING: setting}),
            cached_weights(student),
            torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast),
        ):
            assert (student.lm_head.projection().codes is not None) == (of_codes and setting == "auto")
            total = composed(student, teacher, batch, targets)
        total.value.backward()
        found.append((total.value.detach(), [parameter.grad.clone() for parameter in student.parameters()]))
    (value, gradients), (expected, exact) = found
    tolerance = 2e-2 if autocast else 1e-4
    torch.testing.assert_close(value, expected, rtol=tolerance, atol=0)
    for gradient, other in zip(gradients, exact, strict=True):
        assert float((gradient - other).norm()) <= 5 * tolerance * float(other.norm())
