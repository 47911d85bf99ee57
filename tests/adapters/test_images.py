"""Image classifiers keep the laws of adapters, are planned whole, and learn by every loss that has its signals."""

from typing import Any

import pytest
import torch

from edgerazor.core.contracts import Signal
from edgerazor.core.outputs import Targets
from edgerazor.core.plan import build_plan
from edgerazor.core.registry import Registry
from edgerazor.distill import Distiller
from edgerazor.errors import PlanError
from edgerazor.models.types import auto_class
from edgerazor.testing import check_adapter
from edgerazor.testing.models import quantized, random_recipe
from tests.adapters.image_models import IMAGE_FAMILIES, image_config

FAMILIES = list(IMAGE_FAMILIES)


def adapter_of(name: str, registry: Registry) -> Any:
    return registry.adapter_for(image_config(name).model_type)


def model_of(name: str, *, attention: str | None = None, **changes: Any) -> Any:
    torch.manual_seed(0)
    options = {"attn_implementation": attention} if attention and not name.startswith("resnet") else {}
    config = image_config(name, **changes)
    return auto_class(config).from_config(config, **options).eval()


def batch_of(facts: Any, images: int = 3, labels: int = 1) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(0)
    side = 32 if facts.image.any_size else facts.image.height
    return {
        "pixel_values": torch.randn(images, facts.image.channels, side, side, generator=generator),
        "labels": torch.randint(0, facts.vocab, (images, labels), generator=generator),
        "label_shares": torch.full((images, labels), 1 / labels),
        "token_mask": torch.ones(images, facts.context, dtype=torch.bool),
        "prediction_rows": torch.arange(images * labels),
    }


@pytest.mark.parametrize("name", FAMILIES)
def test_the_laws_of_adapters_hold(registry: Registry, name: str) -> None:
    check_adapter(adapter_of(name, registry).params, image_config(name), registry=registry)


@pytest.mark.parametrize("name", FAMILIES)
def test_the_plan_covers_every_matrix_or_names_it(registry: Registry, name: str) -> None:
    model = model_of(name)
    recipe = random_recipe(registry, kv_cache=False)
    plan = build_plan(model, recipe.quantization, adapter=adapter_of(name, registry), registry=registry)
    covered = {module.parameter_name for module in plan.quantized}
    matrices = {parameter for parameter, value in model.named_parameters() if value.ndim > 1}
    assert covered | set(plan.matrices_left_out) == matrices
    left = {matrix.rpartition(".")[2] for matrix in plan.matrices_left_out}
    assert left <= {"cls_token", "distillation_token", "position_embeddings", "relative_position_bias_table"}
    assert {module.kind for module in plan.modules} == {"linear", "conv"}


@pytest.mark.parametrize("name", ["vit", "resnet"])
@pytest.mark.parametrize("labels", [1, 2])
def test_every_loss_it_has_the_signals_for_teaches_it(registry: Registry, name: str, labels: int) -> None:
    adapter = adapter_of(name, registry)
    losses = []
    for each in registry.names("loss"):
        declared: Any = registry.declared("loss", each)
        layers = {"layers": {"name": "fixed", "layers": [1, 2]}} if "layers" in declared.model_fields else {}
        built = registry.build(registry.params("loss", each, **layers))
        losses += [built] if built.signals <= adapter.signals else []
    assert len(losses) >= (8 if name == "vit" else 7)
    student, teacher = model_of(name, attention="eager"), model_of(name, attention="eager")
    quantized(student, random_recipe(registry, kv_cache=False), adapter=adapter, registry=registry)
    composed = Distiller(losses, task_weight=0.1, adapter=adapter)
    composed.check_models(student.config, teacher.config)
    batch = batch_of(adapter.facts(student.config), labels=labels)
    result = composed(student, teacher, batch, Targets.of_batch(batch))
    assert bool(torch.isfinite(result.value)) and set(composed.names) <= set(result.shares)
    result.value.backward()
    assert all(value.grad is not None and bool(value.grad.any()) for value in student.parameters() if value.ndim > 1)


@pytest.mark.parametrize("name", ["vit", "resnet"])
def test_losses_on_logits_are_those_of_the_models_own_classes(registry: Registry, name: str) -> None:
    adapter, student, teacher = adapter_of(name, registry), model_of(name), model_of(name)
    with torch.no_grad():
        teacher.get_parameter(next(n for n, _ in teacher.named_parameters() if "classifier" in n)).mul_(3)
    batch = batch_of(adapter.facts(student.config), images=4, labels=2)
    batch["label_shares"] = torch.tensor([[0.75, 0.25]] * 4)
    losses = [registry.build(registry.params("loss", loss)) for loss in ("forward_kl", "reverse_kl", "jsd")]
    composed = Distiller(losses, task_weight=1.0, adapter=adapter)
    with torch.no_grad():
        shares = composed(student, teacher, batch, Targets.of_batch(batch)).shares
        ours, theirs = (
            model(pixel_values=batch["pixel_values"]).logits.log_softmax(-1) for model in (student, teacher)
        )
    forward = (theirs.exp() * (theirs - ours)).sum(-1).mean()
    reverse = (ours.exp() * (ours - theirs)).sum(-1).mean()
    mixture = ((ours.exp() + theirs.exp()) / 2).log()
    jsd = ((theirs.exp() * (theirs - mixture)).sum(-1) + (ours.exp() * (ours - mixture)).sum(-1)).mean() / 2
    task = -(ours.gather(1, batch["labels"]) * batch["label_shares"]).sum(-1).mean()
    for key, wanted in {"forward_kl": forward, "reverse_kl": reverse, "jsd": jsd, "task": task}.items():
        torch.testing.assert_close(shares[key], wanted, rtol=1e-4, atol=1e-6)


def test_an_image_without_a_label_is_distilled_and_not_part_of_the_task(registry: Registry) -> None:
    adapter, student, teacher = adapter_of("vit", registry), model_of("vit"), model_of("vit")
    batch = batch_of(adapter.facts(student.config), images=4)
    batch["labels"][2:], batch["label_shares"][2:] = -100, 0.0
    composed = Distiller([registry.build(registry.params("loss", "forward_kl"))], task_weight=1.0, adapter=adapter)
    with torch.no_grad():
        whole = composed(student, teacher, batch, Targets.of_batch(batch)).shares
        logits = student(pixel_values=batch["pixel_values"]).logits[:2]
    wanted = torch.nn.functional.cross_entropy(logits, batch["labels"][:2, 0])
    torch.testing.assert_close(whole["task"], wanted)


def test_stages_of_other_widths_are_not_projected(registry: Registry) -> None:
    adapter = adapter_of("resnet", registry)
    layers = {"name": "fixed", "layers": [1, 2]}
    other = image_config("resnet", hidden_sizes=[16, 32])
    for projection, message in ((None, "hidden_size is"), ("linear", "one matrix serves all layers")):
        loss = registry.build(registry.params("loss", "feature_mse", layers=layers, projection=projection))
        with pytest.raises(PlanError, match=message):
            Distiller([loss], task_weight=0.0, adapter=adapter).check_models(image_config("resnet"), other)


def test_stages_are_chosen_by_their_norm_and_not_by_cosines(registry: Registry) -> None:
    adapter, teacher = adapter_of("resnet", registry), model_of("resnet")
    batch = batch_of(adapter.facts(teacher.config))
    with torch.no_grad():
        states = adapter.forward(teacher, batch, {Signal.HIDDEN_STATES}).hidden_states
    mask = batch["token_mask"]
    by_norm = registry.build(registry.params("selector", "lafd", metric="norm", top_k=1))
    assert float(by_norm.weights(states, mask).sum()) == 1.0
    by_cosine = registry.build(registry.params("selector", "lafd", top_k=1))
    with pytest.raises(PlanError, match="metric: norm"):
        by_cosine.weights(states, mask)


def test_a_model_without_keys_and_values_refuses_a_quantizer_for_them(registry: Registry) -> None:
    model = model_of("vit")
    with pytest.raises(PlanError, match="no attention module was found"):
        quantized(model, random_recipe(registry, kv_cache=True), adapter=adapter_of("vit", registry), registry=registry)
