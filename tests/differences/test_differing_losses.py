"""Where our losses and layer selection differ from the original release (METHOD 10, F1 to F6, F18 to F21)."""

import math
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from edgerazor.core.outputs import ModelOutput, PositionMask, Targets
from tests.plugins.loss_cases import IGNORED, REGISTRY, build, drawn, output, targets

FIRST = {"name": "fixed", "layers": [1]}


def of_logits(name: str, z: Tensor, u: Tensor, aims: Targets, **values: Any) -> Any:
    return build(name, **values)(ModelOutput.from_logits(z), ModelOutput.from_logits(u), aims)


def every_position(batch: int, length: int) -> Targets:
    """Masks of sequences of which each position predicts a label."""
    mask = PositionMask.of(torch.ones(batch, length, dtype=torch.bool))
    return Targets(torch.zeros(batch, length, dtype=torch.long), mask, mask, mask)


def test_f1_the_first_answer_token_is_distilled() -> None:
    """The prompt's last position predicts it; the answer's last position predicts nothing."""
    z = torch.randn(1, 5, 7).requires_grad_(True)
    labels = torch.tensor([[IGNORED, IGNORED, 3, 4, IGNORED]])
    of_logits("forward_kl", z, torch.randn(1, 5, 7), Targets.from_labels(labels)).value.backward()
    assert z.grad is not None and z.grad.abs().sum(dim=-1).bool().tolist() == [[False, True, True, False, False]]


def test_f2_a_token_far_below_the_teachers_keeps_its_loss_and_gradient() -> None:
    teacher, student = torch.zeros(1, 1, 8), torch.zeros(1, 1, 8)
    teacher[..., 0], student[..., 0] = 100.0, -20.0
    z = student.requires_grad_(True)
    value = of_logits("forward_kl", z, teacher, every_position(1, 1)).value
    value.backward()
    assert value.item() == pytest.approx(20 + math.log(7), rel=1e-6)
    assert z.grad is not None and z.grad[0, 0, 0].item() == pytest.approx(-1, rel=1e-6)


def test_f2b_logits_in_bfloat16_are_compared_in_float32() -> None:
    generator = torch.Generator().manual_seed(0)
    u = 4 * torch.randn(2, 6, 500, generator=generator)
    z = u + 0.05 * torch.randn(2, 6, 500, generator=generator)
    narrow, wide = [part.bfloat16() for part in (z, u)], [part.bfloat16().double() for part in (z, u)]
    values = [of_logits("forward_kl", *pair, every_position(2, 6)).value for pair in (narrow, wide)]
    assert values[0].dtype == torch.float32
    assert values[0].item() == pytest.approx(values[1].item(), rel=1e-4)


def test_f3_attention_is_averaged_over_heads_and_gamma_comes_from_its_rows() -> None:
    student, teacher = (torch.randn(1, 2, 4, 4, dtype=torch.float64).softmax(dim=-1) for _ in range(2))
    aims = every_position(1, 4)

    def value(heads: int, **values: Any) -> float:
        sides = (ModelOutput(attentions=(either.repeat(1, heads, 1, 1),)) for either in (student, teacher))
        return float(build("attention_relation", layers=FIRST, **values)(*sides, aims).value)

    assert value(3) == pytest.approx(value(1))
    entropy = float(-(teacher * teacher.log()).sum(dim=-1).mean())
    gamma = 1 - entropy / math.log(16)
    assert 0.2 < gamma < 0.9
    mixed = gamma * value(1, divergence="reverse_kl") + (1 - gamma) * value(1)
    assert value(1, divergence="eakld") == pytest.approx(mixed)


def test_f4_masked_sequences_flat_tokens_and_neighbours_do_not_set_gamma() -> None:
    sure = torch.zeros(2, 4, 5000).index_fill(-1, torch.tensor([3]), 40.0)
    flat = sure.clone()
    flat[0, 0] = 0.0

    def gamma(u: Tensor, labels: Tensor, **values: Any) -> float:
        result = of_logits("eakld", torch.zeros_like(u), u, Targets.from_labels(labels), **values)
        return float(result.metrics["gamma"])

    both = torch.ones(2, 4, dtype=torch.long)
    masked = both.clone()
    masked[1] = IGNORED
    assert gamma(sure, masked) == pytest.approx(1, abs=1e-5)
    assert gamma(flat, masked) == gamma(flat[:1], both[:1]) == 0 < gamma(flat, both)
    assert gamma(flat, both, entropy_cap=True) == pytest.approx(1 - 1 / 6, abs=1e-5)
    assert gamma(flat, both, scope="sequence") == pytest.approx(0.5, abs=1e-5)
    assert gamma(flat, both, scope="token") == pytest.approx(5 / 6, abs=1e-5)


@pytest.mark.parametrize("name", ["forward_kl", "feature_mse"])
def test_f5_masked_sequences_are_in_no_denominator(name: str) -> None:
    student, teacher = output(drawn(0)), output(drawn(1))
    labels = torch.ones(5, 8, dtype=torch.long)
    labels[1:] = IGNORED
    loss = build(name, layers=FIRST)
    alone = [output(drawn(seed), slice(0, 1)) for seed in (0, 1)]
    expected = loss(*alone, Targets.from_labels(labels[:1])).value
    torch.testing.assert_close(loss(student, teacher, Targets.from_labels(labels)).value, expected)


def states(*, padding: int) -> tuple[tuple[Tensor, ...], Tensor]:
    """Seven hidden states of two sequences, padding behind that changes ever more from layer to layer."""
    generator, noise = torch.Generator().manual_seed(0), torch.Generator().manual_seed(1)
    real = [torch.randn(2, 5, 8, generator=generator) for _ in range(7)]
    fill = [3.0**layer * torch.randn(2, padding, 8, generator=noise) for layer in range(7)]
    mask = torch.cat([torch.ones(2, 5), torch.zeros(2, padding)], dim=1).bool()
    return tuple(torch.cat(pair, dim=1) for pair in zip(real, fill, strict=True)), mask


@pytest.mark.parametrize("metric", ["cosine", "norm", "variance"])
def test_f6_padding_and_neighbours_do_not_choose_layers(metric: str) -> None:
    selector = build_selector(metric=metric)
    assert torch.equal(selector.weights(*states(padding=0)), selector.weights(*states(padding=56)))
    # Two sequences far apart: the variance over their positions stays that of each.
    hidden, mask = states(padding=0)
    if metric == "variance":
        apart = (*hidden[:3], hidden[3] + torch.tensor([1e3, -1e3]).reshape(2, 1, 1), *hidden[4:])
        assert torch.equal(selector.weights(apart, mask), selector.weights(hidden, mask))


def test_f6_layers_are_chosen_without_waiting_and_have_one_number_everywhere() -> None:
    class Waits(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            assert "_local_scalar_dense" not in str(func) and "nonzero" not in str(func)
            return func(*args, **(kwargs or {}))

    hidden, mask = states(padding=3)
    with Waits():
        build_selector().weights(hidden, mask)
    for layer in (1, 2, 3):
        loss = build("attention_relation", layers={"name": "fixed", "layers": [layer]})
        student = drawn(0)
        loss(output(student), output(drawn(1)), targets()).value.backward()
        assert student["attentions"].grad is not None
        assert student["attentions"].grad.flatten(1).any(dim=1).nonzero().flatten().tolist() == [layer - 1]


def build_selector(**values: Any) -> Any:
    return REGISTRY.build(REGISTRY.params("selector", "lafd", top_k=2, **values))


def test_f18_a_plain_matrix_of_logits_is_accepted() -> None:
    z, u = torch.randn(2, 6, 9)
    flat = of_logits("eakld", z, u, every_position(6, 1)).value
    torch.testing.assert_close(flat, of_logits("eakld", z[:, None], u[:, None], every_position(6, 1)).value)


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("feature_mse", {"layers": None}),
        ("feature_mse", {"layers": {"name": "fixed", "layers": None}}),
        ("feature_mse", {"layers": FIRST, "reduction": "none"}),
        ("forward_kl", {"reduction": "none"}),
        ("eakld", {"reduction": None}),
    ],
)
def test_f20_values_that_could_only_crash_are_not_in_the_schema(name: str, values: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match=r"reduction|layers"):
        REGISTRY.params("loss", name, **values)


@pytest.mark.parametrize("name", REGISTRY.names("loss"))
def test_f21_every_loss_has_a_gradient(name: str) -> None:
    student, loss = drawn(0), build(name, layers={"name": "all"})
    value = loss(output(student), output(drawn(1)), targets()).value
    assert isinstance(value, Tensor) and value.requires_grad
    value.backward()
    read = [student[signal.value].grad for signal in loss.signals]
    assert read and all(gradient is not None and bool(gradient.any()) for gradient in read)
