"""LoRA of PEFT: where merging would lose what was learned it is refused, and the way round it gives the same logits."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from edgerazor.checkpoint import load_model
from edgerazor.core.registry import Registry
from edgerazor.errors import TrainingError
from tests.packed_cases import logits, make_student

peft = pytest.importorskip("peft")


def with_adapter(model: nn.Module, targets: list[str] | str = "all-linear") -> Any:
    """A LoRA adapter of numbers that training could have come to."""
    adapted = peft.get_peft_model(model, peft.LoraConfig(r=2, target_modules=targets))
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_" in name:
                parameter.normal_(0, 0.1, generator=torch.Generator().manual_seed(len(name)))
    return adapted.eval()


@pytest.mark.parametrize("merge", ["merge_and_unload", "merge_adapter"])
@pytest.mark.parametrize("targets", ["all-linear", ["embed_tokens"]])
def test_merging_into_a_student_is_refused_and_changes_nothing(
    merge: str, targets: Any, build_model: Callable[..., nn.Module], registry: Registry, tmp_path: Path
) -> None:
    student = make_student(build_model, registry, tmp_path).model
    before = {name: tensor.clone() for name, tensor in student.state_dict().items()}
    adapted = with_adapter(student, targets)
    learned = logits(adapted)
    with pytest.raises(
        TrainingError, match=r"cannot be merged into a Quant\w+: .* load_model\(FOLDER, dequantize=True\)"
    ):
        getattr(adapted, merge)()
    assert torch.equal(logits(adapted), learned)
    after = adapted.unload().state_dict()
    assert before.keys() == after.keys() and all(torch.equal(before[name], after[name]) for name in before)


def test_an_adapter_of_a_student_can_be_merged_into_its_dequantized_weights(
    build_model: Callable[..., nn.Module], registry: Registry, tmp_path: Path
) -> None:
    student = make_student(build_model, registry, tmp_path, activations=None, kv_cache=None)
    plain = logits(student.model)
    adapted = with_adapter(student.model)
    learned = logits(adapted)
    assert not torch.allclose(learned, plain, atol=1e-2)
    adapted.save_pretrained(tmp_path / "adapter")
    adapted.unload()
    student.write(tmp_path / "packed")
    model = load_model(tmp_path / "packed", dequantize=True, registry=registry)
    model = peft.PeftModel.from_pretrained(model, tmp_path / "adapter").eval()
    torch.testing.assert_close(logits(model), learned, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(logits(model.merge_and_unload()), learned, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("targets", ["q_proj", "embed_tokens"])
def test_a_packed_layer_takes_no_adapter(
    targets: str, build_model: Callable[..., nn.Module], registry: Registry, tmp_path: Path
) -> None:
    make_student(build_model, registry, tmp_path).write(tmp_path / "packed")
    with pytest.raises(ValueError, match=r"Target module \w*Packed\w+.* is not supported"):
        with_adapter(load_model(tmp_path / "packed", registry=registry), [targets])


def test_what_is_not_quantized_is_merged(
    build_model: Callable[..., nn.Module], registry: Registry, tmp_path: Path
) -> None:
    student = make_student(build_model, registry, tmp_path, "mlp-only", activations=None, kv_cache=None).model
    adapted = with_adapter(student, ["q_proj", "v_proj"])
    learned = logits(adapted)
    torch.testing.assert_close(logits(adapted.merge_and_unload()), learned, atol=1e-4, rtol=1e-4)
