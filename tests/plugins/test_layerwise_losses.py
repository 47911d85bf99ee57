"""Losses between layers against loops in float64 (METHOD 4.4 and 4.6): pairs of layers, widths, heads."""

import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor
from torch.nn import functional

from edgerazor.core.contracts import Signal
from edgerazor.core.outputs import ModelOutput, Targets
from edgerazor.errors import PlanError
from tests.plugins.loss_cases import BATCH, HEADS, HIDDEN, LAYERS, REGISTRY, SEQUENCE, build, drawn, output, targets

EVERY = {"layers": {"name": "all"}}


def config(layers: int = LAYERS, hidden: int = HIDDEN, heads: int = HEADS, kv_heads: int = HEADS) -> Any:
    return SimpleNamespace(
        num_hidden_layers=layers, hidden_size=hidden, num_attention_heads=heads, num_key_value_heads=kv_heads
    )


def sequence_mean(values: Tensor, aims: Targets) -> Tensor:
    rows = zip(values, aims.tokens.mask, strict=True)
    return torch.stack([row[chosen].mean() for row, chosen in rows if chosen.any()]).mean()


def divergence(kind: str, p: Tensor, q: Tensor) -> Tensor:
    forward = (p * (p / q).log()).sum(dim=-1).mean(dim=1)
    reverse = (q * (q / p).log()).sum(dim=-1).mean(dim=1)
    if kind == "eakld":
        gamma = (1 + (p * p.log()).sum(dim=-1).mean(dim=1) / math.log(8)).clamp(0, 1)
        return gamma * reverse + (1 - gamma) * forward
    return forward if kind == "forward_kl" else reverse


def test_feature_cosine() -> None:
    student, teacher, aims = drawn(0), drawn(1), targets()
    loss = build("feature_cosine", **EVERY, weight=3.0)
    expected = sum(
        3 / LAYERS * sequence_mean(1 - functional.cosine_similarity(state, other, dim=-1), aims)
        for state, other in zip(student["hidden_states"][1:], teacher["hidden_states"][1:], strict=True)
    )
    torch.testing.assert_close(loss(output(student), output(teacher), aims).value, expected)
    longer = {**student, "hidden_states": 7 * student["hidden_states"]}
    torch.testing.assert_close(loss(output(longer), output(teacher), aims).value, expected)


@pytest.mark.parametrize("kind", ["forward_kl", "reverse_kl", "eakld"])
def test_attention_relation(kind: str) -> None:
    student, teacher, aims = drawn(0), drawn(1), targets()
    values = {"divergence": kind, "scope": "token", "uniform_support": 8}
    loss = build("attention_relation", layers={"name": "fixed", "layers": [2]}, **values)
    expected = sequence_mean(divergence(kind, teacher["attentions"][1], student["attentions"][1]), aims)
    torch.testing.assert_close(loss(output(student), output(teacher), aims).value, expected)
    assert loss.signals == {Signal.ATTENTIONS}


def test_consecutive_heads_of_the_teacher_are_averaged() -> None:
    student, teacher, aims = drawn(0), drawn(1), targets()
    more = torch.randn(LAYERS, BATCH, 3 * HEADS, SEQUENCE, SEQUENCE, dtype=torch.float64).softmax(dim=-1)
    loss = build("attention_relation", layers={"name": "fixed", "layers": [1]})
    merged = torch.stack([more[0][:, 3 * head : 3 * head + 3].mean(dim=1) for head in range(HEADS)], dim=1)
    expected = sequence_mean(divergence("forward_kl", merged, student["attentions"][0]), aims)
    found = loss(output(student), output({**teacher, "attentions": more}), aims).value
    torch.testing.assert_close(found, expected)
    halves = ({**student, "attentions": student["attentions"].bfloat16()}, {**teacher, "attentions": more.bfloat16()})
    wide = ({key: value.float() for key, value in half.items()} for half in halves)
    torch.testing.assert_close(*(loss(output(ours), output(other), aims).value for ours, other in (halves, wide)))
    loss.check_models(config(), config(heads=3 * HEADS))
    with pytest.raises(PlanError, match="must be a multiple of the student's"):
        loss.check_models(config(), config(heads=HEADS + 1))
    with pytest.raises(PlanError, match="num_key_value_heads is 2 in the student and 1 in the teacher"):
        build("key_value_relation", **EVERY).check_models(config(), config(kv_heads=1))


@pytest.mark.parametrize("component", ["key", "value", "both"])
def test_key_value_relation_looks_at_what_is_not_padding(component: str) -> None:
    student, teacher = drawn(0), drawn(1)
    attention = torch.ones(BATCH, SEQUENCE, dtype=torch.long)
    attention[:, 6:] = 0
    labels = torch.ones(BATCH, SEQUENCE, dtype=torch.long).masked_fill(attention == 0, -100)
    aims = Targets.from_labels(labels, attention)
    loss = build("key_value_relation", component=component, layers={"name": "fixed", "layers": ["high"]})
    parts = []
    for name in ("keys", "values"):
        if component != "both" and not name.startswith(component):
            continue
        rows = []
        for side in (teacher, student):
            states = side[name][-1][:, :, :6]
            rows.append((states @ states.transpose(-1, -2) / math.sqrt(HIDDEN)).softmax(dim=-1))
        parts.append(divergence("forward_kl", *rows).mean())
    expected = torch.stack(parts).mean()
    torch.testing.assert_close(loss(output(student), output(teacher), aims).value, expected)
    assert loss.signals == {Signal(f"{part}s") for part in (("key", "value") if component == "both" else (component,))}


def test_router_z() -> None:
    student = drawn(0)
    attention = torch.ones(BATCH, SEQUENCE, dtype=torch.long)
    attention[1, 3:] = 0
    aims = Targets.from_labels(torch.ones(BATCH, SEQUENCE, dtype=torch.long), attention)
    squares = student["router_logits"].logsumexp(dim=-1).square()[:, attention.flatten().bool()]
    found = build("router_z", weight=0.5)(output(student), ModelOutput(), aims)
    torch.testing.assert_close(found.value, 0.5 * squares.mean())
    assert build("router_z").params.weight == 0.001


@pytest.mark.parametrize(
    ("layer_map", "students"), [("proportional", [1, 1, 2, 2, 3]), ({1: 3, 2: 3, 3: 1, 4: 2, 5: 1}, [3, 3, 1, 2, 1])]
)
def test_layers_of_a_deeper_teacher_meet_those_the_map_gives(layer_map: Any, students: list[int]) -> None:
    deeper = torch.randn(6, BATCH, SEQUENCE, HIDDEN, dtype=torch.float64)
    student, aims = drawn(0), targets()
    loss = build("feature_mse", layer_map=layer_map, **EVERY)
    loss.check_models(config(), config(layers=5))
    pairs = zip(students, range(1, 6), strict=True)
    expected = sum(
        sequence_mean((student["hidden_states"][ours] - deeper[theirs]).square().mean(dim=-1), aims) / 5
        for ours, theirs in pairs
    )
    teacher = ModelOutput(hidden_states=tuple(deeper))
    torch.testing.assert_close(loss(output(student), teacher, aims).value, expected)


def test_depths_and_maps_that_do_not_fit_are_refused() -> None:
    with pytest.raises(PlanError, match=r"feature_mse: num_hidden_layers is 3 .* and 5 .*proportional"):
        build("feature_mse", **EVERY).check_models(config(), config(layers=5))
    with pytest.raises(PlanError, match="no entry for the teacher's layer 2"):
        build("feature_mse", layer_map={1: 1}, **EVERY).check_models(config(), config())
    with pytest.raises(PlanError, match="the student's layer 4; the student has 0 to 3"):
        build("feature_mse", layer_map={1: 4, 2: 2, 3: 3}, **EVERY).check_models(config(), config())
    chosen = {"name": "lafd", "top_k": 1}
    with pytest.raises(PlanError, match="no entry for the teacher's layer 3"):
        build("feature_mse", layer_map={1: 1, 2: 2}, layers=chosen).check_models(config(), config())
    build("feature_mse", layer_map={1: 1, 2: 2, 3: 3}, layers=chosen).check_models(config(), config())
    with pytest.raises(PlanError, match="layer 0 is no decoder layer"):
        build("attention_relation", layers={"name": "fixed", "layers": [0]}).check_models(config(), config())
    with pytest.raises(ValidationError, match="layer_map"):
        REGISTRY.params("loss", "feature_mse", layer_map="nearest", **EVERY)


@pytest.mark.parametrize("name", ["feature_mse", "feature_cosine"])
def test_a_projection_takes_the_student_to_the_teachers_width(name: str) -> None:
    wider = torch.randn(LAYERS + 1, BATCH, SEQUENCE, 2 * HIDDEN, dtype=torch.float32)
    student, aims = drawn(0, dtype=torch.float32), targets()
    loss = build(name, projection="linear", layers={"name": "fixed", "layers": [1]})
    with pytest.raises(PlanError, match="call check_models first"):
        loss(output(student), ModelOutput(hidden_states=tuple(wider)), aims)
    loss.check_models(config(), config(hidden=2 * HIDDEN))
    matrix = loss.module.weight
    assert matrix.shape == (2 * HIDDEN, HIDDEN)
    torch.testing.assert_close(matrix.T @ matrix, torch.eye(HIDDEN))
    value = loss(output(student), ModelOutput(hidden_states=tuple(wider)), aims).value
    projected = student["hidden_states"][1] @ matrix.T
    if name == "feature_mse":
        expected = sequence_mean((projected - wider[1]).square().mean(dim=-1), aims)
    else:
        expected = sequence_mean(1 - functional.cosine_similarity(projected, wider[1], dim=-1), aims)
    torch.testing.assert_close(value, expected)
    value.backward()
    assert bool(matrix.grad.any()) and bool(student["hidden_states"].grad[1].any())
    with pytest.raises(PlanError, match="projection: linear"):
        build(name, **EVERY).check_models(config(), config(hidden=2 * HIDDEN))


@pytest.mark.parametrize("name", ["feature_mse", "attention_relation"])
def test_comparing_all_that_may_be_chosen_gives_what_comparing_the_chosen_gives(name: str) -> None:
    """A GPU does the former: looking at the choice would halt the host."""
    student, teacher, aims = drawn(0), drawn(1), targets()
    loss = build(name, layer_map={1: 2, 2: 1, 3: 3}, layers={"name": "lafd", "top_k": 1})
    assert loss.candidates(LAYERS) == [1, 2, 3]
    weights = loss.layers.weights(output(teacher).hidden_states, aims.attention.mask)
    few = loss(output(student), output(teacher), aims)
    every = loss.compare(output(student), output(teacher), aims, weights, loss.candidates(LAYERS))
    torch.testing.assert_close(every.value, few.value)
    assert list(every.shares) == list(few.shares)
    for key, figure in few.shares.items():
        torch.testing.assert_close(every.shares[key], figure, check_dtype=False)
