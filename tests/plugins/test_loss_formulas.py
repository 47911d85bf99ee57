"""The formula of each loss against plain autograd in float64 (METHOD 4.2 to 4.4), and the laws of gamma."""

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from torch import Tensor

from edgerazor.core.outputs import ModelOutput, PositionMask, Targets
from tests.kernels import oracle
from tests.plugins.loss_cases import REGISTRY, accepts, build, cases, drawn, gradients, output, targets

TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-5}
OF_LOGITS = ("forward_kl", "reverse_kl", "eakld", "cakld", "jsd")
divergences = pytest.mark.parametrize(("name", "values"), [case for case in cases() if case.values[0] in OF_LOGITS])


def reduced(per_position: Tensor, mask: PositionMask, reduction: str) -> Tensor:
    """METHOD 4.1, said with loops."""
    rows = [row[chosen] for row, chosen in zip(per_position, mask.mask, strict=True) if bool(chosen.any())]
    if reduction == "sum":
        return torch.cat(rows).sum()
    return torch.cat(rows).mean() if reduction == "token_mean" else torch.stack([row.mean() for row in rows]).mean()


def confidence_of(params: Any, u: Tensor, labels: Tensor) -> Tensor:
    """`[batch, seq]`, before any mean."""
    if params.name == "cakld":
        return u.softmax(dim=-1).gather(-1, labels.clamp(min=0).unsqueeze(-1)).squeeze(-1)
    most = math.log(params.uniform_support)
    entropy = oracle.entropy(u)
    return 1 - (entropy.clamp(max=most) if params.entropy_cap else entropy) / most


def gamma_of(params: Any, u: Tensor, aims: Targets) -> Tensor:
    """`[batch, seq]`, METHOD 4.3."""
    mask, confidence = aims.predictions.mask, confidence_of(params, u, aims.next_labels())
    if params.scope == "token":
        return confidence.clamp(0, 1)
    means = [row[chosen].mean() if bool(chosen.any()) else None for row, chosen in zip(confidence, mask, strict=True)]
    if params.scope == "batch":
        live = torch.stack([mean for mean in means if mean is not None])
        return live.mean().clamp(0, 1).expand(u.shape[:-1])
    filled = torch.stack([torch.ones((), dtype=u.dtype) if mean is None else mean for mean in means])
    return filled.clamp(0, 1).unsqueeze(-1).expand(u.shape[:-1])


def mixture_divergence(params: Any, z: Tensor, u: Tensor) -> Tensor:
    """METHOD 4.2, from probabilities."""
    p, q = (u / params.temperature).softmax(dim=-1), (z / params.temperature).softmax(dim=-1)
    m = params.beta * p + (1 - params.beta) * q
    each = params.beta * p * (p / m).log() + (1 - params.beta) * q * (q / m).log()
    return params.temperature**2 * each.sum(dim=-1)


def expected(loss: Any, z: Tensor, u: Tensor, aims: Targets) -> Tensor:
    params, mask = loss.params, aims.predictions
    if params.name == "jsd":
        return params.weight * reduced(mixture_divergence(params, z, u), mask, params.reduction)
    forward, reverse = oracle.forward_kl(z, u, params.temperature), oracle.reverse_kl(z, u, params.temperature)
    if params.name in ("eakld", "cakld"):
        gamma = gamma_of(params, u, aims)
        forward = gamma * reverse + (1 - gamma) * forward
    elif params.name == "reverse_kl":
        forward = reverse
    return params.weight * reduced(forward, mask, params.reduction)


@pytest.mark.slow
@divergences
@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("reduction", ["sequence_mean", "token_mean", "sum"])
@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.5])
def test_divergences(name: str, values: dict[str, Any], dtype: torch.dtype, reduction: str, temperature: float) -> None:
    loss = build(name, **values, reduction=reduction, temperature=temperature, weight=0.5)
    student, teacher = drawn(0, dtype=dtype), drawn(1, dtype=dtype)
    value = loss(output(student), output(teacher), targets()).value
    z, u = student["logits"].detach().double().requires_grad_(True), teacher["logits"].detach().double()
    exact = expected(loss, z, u, targets())
    torch.testing.assert_close(value.double(), exact, rtol=TOLERANCE[dtype], atol=0)
    (gradient,) = torch.autograd.grad(exact, z)
    found = gradients(value, student)["logits"].double()
    torch.testing.assert_close(
        found, gradient, rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype] * float(gradient.abs().max())
    )


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("reduction", ["sequence_mean", "token_mean"])
@pytest.mark.parametrize("heads", [False, True])
@pytest.mark.parametrize("relative", [False, True])
def test_feature_mse(dtype: torch.dtype, reduction: str, heads: bool, relative: bool) -> None:
    signal = "keys" if heads else "hidden_states"
    student, teacher = drawn(0, dtype=dtype), drawn(1, dtype=dtype)
    layers = {"name": "fixed", "layers": [1, -1]}
    loss = build("feature_mse", layers=layers, reduction=reduction, relative=relative, weight=0.5)
    states = [ModelOutput(hidden_states=tuple(signals[signal])) for signals in (student, teacher)]
    value = loss(*states, targets()).value
    z, u = student[signal].detach().double().requires_grad_(True), teacher[signal].detach().double()
    axes = (2, 4) if heads else (3,)
    squares = (z - u).square().mean(dim=axes) / (u.square().mean(dim=axes) if relative else 1)
    exact = 0.25 * sum(reduced(squares[layer], targets().tokens, reduction) for layer in (1, len(z) - 1))
    torch.testing.assert_close(value.double(), exact, rtol=TOLERANCE[dtype], atol=0)
    (gradient,) = torch.autograd.grad(exact, z)
    torch.testing.assert_close(gradients(value, student)[signal].double(), gradient, rtol=1e-5, atol=TOLERANCE[dtype])


@pytest.mark.parametrize("size", [1e-3, 1.0, 1e3])
def test_a_relative_error_does_not_depend_on_the_size_of_the_states(size: float) -> None:
    loss = build("feature_mse", layers={"name": "all"}, relative=True, weight=1.0)
    student, teacher = (size * drawn(seed)["hidden_states"].detach() for seed in (0, 1))
    found, nothing, same = (
        float(
            loss(ModelOutput(hidden_states=tuple(states)), ModelOutput(hidden_states=tuple(teacher)), targets()).value
        )
        for states in (student, torch.zeros_like(teacher), teacher)
    )
    usual = loss(output(drawn(0)), output(drawn(1)), targets()).value
    assert found == pytest.approx(float(usual)) and nothing == pytest.approx(1) and same == 0


def test_a_teacher_without_a_state_makes_no_infinite_loss() -> None:
    loss = build("feature_mse", layers={"name": "all"}, relative=True)
    student = drawn(0)
    value = loss(
        output(student), ModelOutput(hidden_states=tuple(torch.zeros_like(student["hidden_states"]))), targets()
    ).value
    assert torch.isfinite(value) and all(torch.isfinite(gradients(value, student)["hidden_states"]).flatten())


def test_feature_mse_reports_each_layer() -> None:
    result = build("feature_mse", layers={"name": "fixed", "layers": [1, 3]}, weight=3.0)(
        output(drawn(0)), output(drawn(1)), targets()
    )
    layers = [float(result.shares[f"layer_{layer}"]) for layer in range(4)]
    assert float(result.value.detach()) == pytest.approx(3 * sum(layers) / 2)
    assert [figure > 0 for figure in layers] == [False, True, False, True]
    assert [float(result.metrics[f"chosen_{layer}"]) for layer in range(4)] == [0, 1, 0, 1]


def test_layers_are_chosen_by_what_is_not_padding_whatever_the_labels() -> None:
    student, teacher, aims = output(drawn(0)), output(drawn(2)), targets()
    loss = build("feature_mse", layers={"name": "lafd", "top_k": 1})
    by_mask = [loss.layers.weights(teacher.hidden_states, mask.mask).tolist() for mask in (aims.attention, aims.tokens)]
    metrics = loss(student, teacher, aims).metrics
    assert [float(metrics[f"chosen_{layer}"]) for layer in range(4)] == by_mask[0] != by_mask[1]


@pytest.mark.parametrize(
    ("name", "values"), [case for case in cases() if case.values[0] in OF_LOGITS and case.values[0] != "cakld"]
)
def test_a_plain_matrix_of_logits_counts_as_sequences_of_one(name: str, values: dict[str, Any]) -> None:
    z, u = torch.randn(2, 6, 9, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    mask = PositionMask.of(torch.tensor([[True], [True], [False], [True], [True], [False]]))
    aims = Targets(torch.zeros(6, 1, dtype=torch.long), mask, mask, mask)
    loss = build(name, **values)
    value = loss(ModelOutput.from_logits(z), ModelOutput.from_logits(u), aims).value
    torch.testing.assert_close(value, expected(loss, z.unsqueeze(1), u.unsqueeze(1), aims))


@divergences
def test_logits_of_ten_thousand_stay_finite(name: str, values: dict[str, Any]) -> None:
    student, teacher = drawn(0, dtype=torch.float32), drawn(1, dtype=torch.float32)
    for signals in (student, teacher):
        signals["logits"] = (signals["logits"].detach().sign() * 1e4).requires_grad_(True)
    value = build(name, **values)(output(student), output(teacher), targets()).value
    assert bool(torch.isfinite(value)) and float(value.detach()) > 0
    assert bool(torch.isfinite(gradients(value, student)["logits"]).all())


def eakld_of(u: Tensor, **values: Any) -> tuple[float, float, float, float]:
    """eakld, forward and reverse KL, and gamma, for a teacher `[batch, seq, vocab]`."""
    z = drawn(0)["logits"].detach()
    student, teacher = ModelOutput.from_logits(z), ModelOutput.from_logits(u)
    result = build("eakld", **values)(student, teacher, targets())
    others = [float(build(name)(student, teacher, targets()).value) for name in ("forward_kl", "reverse_kl")]
    return float(result.value), others[0], others[1], float(result.metrics["gamma"])


@pytest.mark.parametrize("scope", ["batch", "sequence", "token"])
def test_a_sure_teacher_gives_reverse_kl(scope: str) -> None:
    u = torch.full_like(drawn(0)["logits"], -40.0).index_fill(-1, torch.tensor([4]), 40.0).detach()
    value, _, reverse, gamma = eakld_of(u, scope=scope)
    assert gamma == pytest.approx(1) and value == pytest.approx(reverse)


@pytest.mark.parametrize("scope", ["batch", "sequence", "token"])
@pytest.mark.parametrize("cap", [False, True])
def test_an_unsure_teacher_gives_forward_kl(scope: str, cap: bool) -> None:
    u = torch.zeros_like(drawn(0)["logits"]).detach()
    value, forward, _, gamma = eakld_of(u, scope=scope, entropy_cap=cap, uniform_support=8)
    assert gamma == 0 and value == pytest.approx(forward)


@given(seed=st.integers(0, 2**32 - 1), spread=st.floats(0.1, 8))
def test_the_batch_value_lies_between_the_two_divergences(seed: int, spread: float) -> None:
    value, forward, reverse, gamma = eakld_of(drawn(seed)["logits"].detach() * spread)
    assert 0 <= gamma <= 1
    assert min(forward, reverse) * (1 - 1e-9) <= value <= max(forward, reverse) * (1 + 1e-9)


def test_one_flat_token_outweighs_a_confident_batch_unless_capped() -> None:
    u = torch.full((5, 8, 4000), -30.0, dtype=torch.float64).index_fill(-1, torch.tensor([4]), 30.0)
    place = tuple(targets().predictions.mask.nonzero()[-1].tolist())
    u[place] = 0.0
    z = torch.zeros_like(u)

    def gamma(**values: Any) -> float:
        loss = build("eakld", uniform_support=4, **values)
        return float(loss(ModelOutput.from_logits(z), ModelOutput.from_logits(u), targets()).metrics["gamma"])

    assert gamma() == 0
    assert gamma(entropy_cap=True) == pytest.approx(0.75, abs=1e-6)


@pytest.mark.parametrize(("scope", "depends"), [("batch", True), ("sequence", False), ("token", False)])
def test_only_the_batch_scope_depends_on_the_neighbours(scope: str, depends: bool) -> None:
    student, teacher = drawn(0)["logits"].detach(), drawn(1)["logits"].detach()
    other = teacher.clone()
    other[1:] *= 5
    loss = build("eakld", scope=scope, uniform_support=6, reduction="sum")

    def first_row(u: Tensor) -> Tensor:
        z = student.clone().requires_grad_(True)
        value = loss(ModelOutput.from_logits(z), ModelOutput.from_logits(u), targets()).value
        return torch.autograd.grad(value, z)[0][0]

    assert torch.equal(first_row(teacher), first_row(other)) != depends


def test_metrics_of_eakld() -> None:
    teacher, aims = drawn(1), targets()
    result = build("eakld", uniform_support=6)(output(drawn(0)), output(teacher), aims)
    entropy = oracle.entropy(teacher["logits"].detach())[aims.predictions.mask]
    assert float(result.metrics["teacher_entropy"]) == pytest.approx(float(entropy.mean()))
    assert {"gamma", "forward_kl", "reverse_kl"} <= set(result.metrics)


def test_confidence_needs_two_outcomes() -> None:
    with pytest.raises(ValidationError, match="uniform_support"):
        REGISTRY.params("loss", "eakld", uniform_support=1.5)


@pytest.mark.parametrize("name", [name for name in REGISTRY.names("loss") if accepts(name, "temperature")])
@pytest.mark.parametrize("temperature", [0.0, -1.0])
def test_temperatures_are_positive(name: str, temperature: float) -> None:
    with pytest.raises(ValidationError, match="temperature"):
        REGISTRY.params("loss", name, temperature=temperature)
