"""Modules and a whole tiny model against the original release (METHOD 11)."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from edgerazor.core.apply import apply_plan
from edgerazor.core.contracts import Signal
from edgerazor.core.layers.embedding import make_embedding
from edgerazor.core.layers.linear import make_linear
from edgerazor.core.plan import build_plan
from edgerazor.errors import PlanError
from edgerazor.schemas.quantization import QuantizationSection
from tests.golden_cases import REGISTRY, cases, difference, manifest, params, same_libraries, targets, tensors


def quantizer(values: dict[str, Any] | None) -> Any:
    return REGISTRY.build(params("quantizer", {**values, "scale_dtype": "float32"})) if values else None


def parts(case: dict[str, Any]) -> dict[str, Tensor]:
    prefix = f"mod.{case['id']}."
    return {name.removeprefix(prefix): tensor for name, tensor in tensors("modules").items() if name.startswith(prefix)}


def module_of(case: dict[str, Any], held: dict[str, Tensor]) -> nn.Module:
    rows, columns = held["weight"].shape
    module: Any
    if case["class"] == "Embedding":
        module = nn.Embedding(rows, columns)
        make_embedding(module, quantizer(case["ours"]["weight"]))
    else:
        module = nn.Linear(columns, rows)
        module.bias.data.copy_(held["bias"])
        make_linear(module, quantizer(case["ours"]["weight"]), quantizer(case["ours"]["input"]))
    module.weight.data.copy_(held["weight"])
    return module


@cases("modules", "same")
def test_modules_agree(case: dict[str, Any]) -> None:
    held = parts(case)
    module = module_of(case, held)
    x = held["x"].clone().requires_grad_(held["x"].is_floating_point())
    out = module.train()(x)
    out.backward(held["out_grad"])
    assert difference(out, held["train_out"]) <= 1e-5
    assert difference(module.eval()(x), held["eval_out"]) <= 1e-5
    assert difference(module.weight.grad, held["grad_weight"]) <= 1e-5
    if "grad_x" in held:
        assert x.grad is not None and difference(x.grad, held["grad_x"]) <= 1e-5


@cases("modules", "different")
def test_modules_differ_where_the_original_is_at_fault(case: dict[str, Any]) -> None:
    held = parts(case)
    assert difference(module_of(case, held)(held["x"]), held["train_out"]) > 1e-5


@cases("modules", "refused")
def test_modules_that_do_not_divide_are_refused(case: dict[str, Any]) -> None:
    with pytest.raises(PlanError, match="96 columns"):
        quantizer(case["ours"]["weight"]).check_shape(tuple(parts(case)["weight"].shape))


def tiny_model() -> Any:
    from transformers import AutoModelForCausalLM, Qwen3Config

    values = dict(manifest()["tiny_qwen3"]["model_config"])
    rope = {"rope_type": "default", "rope_theta": values.pop("rope_theta")}
    config = Qwen3Config(**values, rope_parameters=rope, attn_implementation="eager")
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    held = tensors("tiny_qwen3")
    weights = {name.removeprefix("w."): tensor for name, tensor in held.items() if name.startswith("w.")}
    missing, unexpected = model.load_state_dict(weights, strict=False)
    assert missing == ["lm_head.weight"] and not unexpected
    return model


def quantized(case: dict[str, Any], *, kv_cache: bool = True) -> Any:
    section = {
        "weights": [
            {**rule, "quantizer": {**rule["quantizer"], "scale_dtype": "float32"}}
            for rule in case["ours"]["quantization"]["weights"]
        ],
        "activations": {**case["ours"]["quantization"]["activations"], "scale_dtype": "float32"},
        "kv_cache": {**case["ours"]["quantization"]["kv_cache"], "scale_dtype": "float32"} if kv_cache else None,
    }
    quantization = QuantizationSection.model_validate(section, context={"registry": REGISTRY})
    model = tiny_model()
    plan = build_plan(model, quantization, adapter=REGISTRY.adapter_for("qwen3"), registry=REGISTRY)
    return apply_plan(model, plan, registry=REGISTRY)


@cases("tiny_qwen3", "same")
def test_logits_of_a_model_agree(case: dict[str, Any]) -> None:
    held, tag = tensors("tiny_qwen3"), case["tag"]
    tolerance = 1e-5 if same_libraries() else 1e-3
    model = quantized(case)
    with torch.no_grad():
        assert difference(tiny_model()(input_ids=held["input_ids"]).logits, held["teacher.logits"]) <= 1e-5
        assert difference(model.train()(input_ids=held["input_ids"]).logits, held[f"{tag}.train_logits"]) <= tolerance
        assert difference(model.eval()(input_ids=held["input_ids"]).logits, held[f"{tag}.eval_logits_kv8"]) <= tolerance
        plain = quantized(case, kv_cache=False)(input_ids=held["input_ids"]).logits
        assert difference(plain, held[f"{tag}.eval_logits_kv16"]) <= tolerance


@cases("tiny_qwen3", "same")
def test_losses_and_gradients_of_a_model_agree(case: dict[str, Any]) -> None:
    held, distillation = tensors("tiny_qwen3"), case["ours"]["distillation"]
    adapter, signals = REGISTRY.adapter_for("qwen3"), {Signal.LOGITS, Signal.HIDDEN_STATES}
    model, batch = quantized(case).train(), {"input_ids": held["input_ids"]}
    with torch.no_grad():
        teacher = adapter.forward(tiny_model().eval(), batch, signals)
    student = adapter.forward(model, batch, signals)
    aims = targets(held["labels"], tuple(held["labels"].shape))
    total = distillation["task_weight"] * functional.cross_entropy(
        student.logits[:, :-1].flatten(0, 1), held["labels"][:, 1:].flatten()
    )
    assert difference(total.detach() / distillation["task_weight"], torch.tensor(case["task"])) <= 1e-5
    for index, values in enumerate(distillation["losses"], start=1):
        loss = REGISTRY.build(params("loss", values))
        result = loss(student, teacher, aims)
        total = total + result.value
        assert (
            difference(result.value.detach() / loss.params.weight, torch.tensor(case["details"][f"loss_{index}"]))
            <= 1e-5
        )
        if index == 2:
            picked = [
                int(name.removeprefix("chosen_"))
                for name, on in result.metrics.items()
                if name.startswith("chosen_") and on
            ]
            assert picked == case["adaptive_selected"]
    total.backward()
    assert difference(total.detach(), torch.tensor(case["total"])) <= 1e-5
    named = dict(model.named_parameters())
    assert difference(named["model.layers.0.self_attn.q_proj.weight"].grad, held[f"{case['tag']}.grad.q_proj0"]) <= 1e-4
    for name, expected in case["grad_norms"].items():
        assert float(named[name].grad.norm()) == pytest.approx(expected, rel=1e-4)
