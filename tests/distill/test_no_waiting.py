"""A training step reads nothing back from the device, for which the host would have to wait."""

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from edgerazor.core.outputs import Targets
from edgerazor.data import Collator
from tests.distill.distillers import distiller


class NeverWaits(TorchDispatchMode):
    """Fails on what makes a host wait for its device: reading a value, or a shape that depends on values."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        assert function.overloadpacket not in (
            torch.ops.aten._local_scalar_dense,
            torch.ops.aten.nonzero,
            torch.ops.aten.masked_select,
        ), function
        return function(*args, **(kwargs or {}))


def test_a_step_does_not_wait_for_the_device(registry, build_model, quantize_model, batch):
    """Batches of the collator; layers that are chosen per batch are compared all on a GPU, so they are fixed here."""
    student = quantize_model(build_model(seed=1), attentions=True)
    teacher = build_model(seed=0)
    teacher.set_attn_implementation("eager")
    layers = {"layers": {"name": "fixed", "layers": ["low", "high"]}}
    names = [name for name in registry.names("loss") if name != "router_z"]
    kinds = [(name, registry.declared("loss", name).model_fields) for name in names]
    composed = distiller(registry, [{"name": name, **(layers if "layers" in kind else {})} for name, kind in kinds])
    pairs = zip(batch["input_ids"].tolist(), batch["labels"].tolist(), strict=True)
    made = Collator(0)([{"input_ids": ids, "labels": labels, "label_bytes": 0} for ids, labels in pairs])
    with NeverWaits():
        targets = Targets.from_labels(made["labels"], made["token_mask"])
        composed(student, teacher, made, targets).value.backward()
    assert student.model.embed_tokens.weight.grad is not None


def test_choosing_layers_does_not_wait_for_the_device(registry):
    states, mask = tuple(torch.randn(4, 2, 5, 8)), torch.ones(2, 5, dtype=torch.bool)
    for metric in ("cosine", "norm", "variance"):
        selector = registry.build(registry.params("selector", "lafd", top_k=2, metric=metric))
        with NeverWaits():
            selector.weights(states, mask)
