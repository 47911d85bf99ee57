"""An offloaded teacher teaches the same, and its weights are elsewhere while the student runs."""

import pytest
import torch

from edgerazor.core.outputs import Targets
from edgerazor.distill import Distiller
from edgerazor.models.offload import offload

LOSSES = [
    {"name": "eakld", "weight": 2.0},
    {"name": "feature_mse", "weight": 0.5, "layers": {"name": "lafd", "top_k": 1}},
]


@pytest.fixture
def batch():
    ids = torch.randint(0, 96, (2, 12), generator=torch.Generator().manual_seed(0))
    return {"input_ids": ids, "labels": ids.clone()}


@pytest.fixture
def distiller(registry):
    losses = [registry.build(registry.params("loss", **loss)) for loss in LOSSES]
    return Distiller(losses, task_weight=0.1, adapter=registry.adapter_for("qwen3"))


def addresses(model):
    return {name: tensor.data_ptr() for name, tensor in model.named_parameters()}


@pytest.mark.parametrize("tied", [True, False])
def test_losses_and_gradients_are_the_same(distiller, build_model, quantize_model, batch, tied):
    teacher = build_model(seed=0, tie_word_embeddings=tied).requires_grad_(False)
    student = quantize_model(build_model(seed=1, tie_word_embeddings=tied))
    targets = Targets.from_labels(batch["labels"])

    def step():
        student.zero_grad()
        total = distiller(student, teacher, batch, targets)
        total.value.backward()
        return total.value.detach(), [parameter.grad.clone() for parameter in student.parameters()]

    value, gradients = step()
    offload(teacher, torch.device("cpu"))
    waiting, running = addresses(teacher), {}
    teacher.model.layers[0].register_forward_hook(lambda *_: running.update(addresses(teacher)))
    again, same = step()
    assert torch.equal(value, again)
    assert all(torch.equal(gradient, other) for gradient, other in zip(gradients, same, strict=True))
    assert addresses(teacher) == waiting and not set(running.values()) & set(waiting.values())


def test_weights_leave_after_a_failure_too(build_model, batch):
    teacher = build_model(seed=0).requires_grad_(False)
    offload(teacher, torch.device("cpu"))
    waiting = addresses(teacher)
    with pytest.raises(IndexError):
        teacher(input_ids=batch["input_ids"] + 1000)
    assert addresses(teacher) == waiting


def test_what_is_trained_is_refused(build_model):
    with pytest.raises(ValueError, match="only a frozen model"):
        offload(build_model(seed=0), torch.device("cpu"))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_the_device_is_free_while_the_student_runs(build_model, batch):
    teacher = build_model(seed=0).requires_grad_(False)
    size = sum(parameter.nbytes for parameter in teacher.parameters())
    before = torch.cuda.memory_allocated()
    offload(teacher, torch.device("cuda"))
    logits = teacher(input_ids=batch["input_ids"].cuda()).logits
    assert logits.is_cuda and torch.cuda.memory_allocated() - before < size
