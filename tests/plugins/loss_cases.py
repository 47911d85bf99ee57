"""Which losses the laws run over, and the batch they meet."""

from typing import Any

import pytest
import torch
from torch import Tensor

from edgerazor.core.discovery import load_plugins
from edgerazor.core.outputs import ModelOutput, PositionMask, Targets

REGISTRY = load_plugins(external=False)
BATCH, SEQUENCE, VOCABULARY, HIDDEN, LAYERS, HEADS = 5, 8, 11, 6, 3, 2
IGNORED = -100

# A loss that is not named here runs with its defaults, so it is tested by being registered.
PARAMETERS: dict[str, list[dict[str, Any]]] = {
    "feature_mse": [
        {"layers": {"name": "fixed", "layers": [1, -1]}},
        {"layers": {"name": "lafd", "top_k": 2}},
        {"layers": {"name": "all"}, "relative": True},
    ],
    "feature_cosine": [{"layers": {"name": "all"}}],
    "attention_relation": [
        {"divergence": "forward_kl", "layers": {"name": "all"}},
        {"divergence": "reverse_kl", "layers": {"name": "lafd", "top_k": 2}},
        {"divergence": "eakld", "scope": "sequence", "uniform_support": 4, "layers": {"name": "fixed", "layers": [2]}},
    ],
    "key_value_relation": [
        {"component": "value", "layers": {"name": "fixed", "layers": ["low", "high"]}},
        {"component": "both", "divergence": "reverse_kl", "layers": {"name": "all"}},
        {"component": "key", "divergence": "eakld", "scope": "token", "layers": {"name": "all"}},
        {"component": "key", "divergence": "eakld", "scope": "batch", "layers": {"name": "all"}},
    ],
    "jsd": [{}, {"beta": 0.2}],
    "cakld": [{"scope": scope} for scope in ("batch", "sequence", "token")],
    "eakld": [
        {"scope": scope, "entropy_cap": cap, "uniform_support": 6}
        for scope in ("batch", "sequence", "token")
        for cap in (False, True)
    ],
}
# What is chosen once per forward pass depends on what shares the batch (METHOD 4.7).
PER_FORWARD_PASS = ({"scope": "batch"}, {"layers": {"name": "lafd", "top_k": 2}})


def cases() -> list[Any]:
    """One pytest parameter `(name, values)` per loss and parameter set."""
    return [
        pytest.param(name, values, id=" ".join([name, *(f"{key}={value}" for key, value in values.items())]))
        for name in REGISTRY.names("loss")
        for values in PARAMETERS.get(name, [{}])
    ]


def accepts(name: str, key: str) -> bool:
    """True if the loss has that parameter."""
    declared = REGISTRY.declared("loss", name)
    return declared is not None and key in declared.model_fields


def build(name: str, **values: Any) -> Any:
    """A loss outside a recipe; keys that its schema does not have are left out."""
    return REGISTRY.build(REGISTRY.params("loss", name, **{k: v for k, v in values.items() if accepts(name, k)}))


def drawn(seed: int, *, dtype: torch.dtype = torch.float64) -> dict[str, Tensor]:
    """Every signal of one forward pass, stacked over layers, as leaves that take a gradient."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    signals = {
        "logits": 2 * normal(BATCH, SEQUENCE, VOCABULARY),
        "hidden_states": normal(LAYERS + 1, BATCH, SEQUENCE, HIDDEN),
        "attentions": normal(LAYERS, BATCH, HEADS, SEQUENCE, SEQUENCE).softmax(dim=-1),
        "keys": normal(LAYERS, BATCH, HEADS, SEQUENCE, HIDDEN),
        "values": normal(LAYERS, BATCH, HEADS, SEQUENCE, HIDDEN),
        "router_logits": normal(LAYERS, BATCH * SEQUENCE, 4),
    }
    return {name: tensor.to(dtype).requires_grad_(True) for name, tensor in signals.items()}


def output(signals: dict[str, Tensor], rows: slice = slice(None)) -> ModelOutput:
    """The forward pass of some sequences of the batch."""
    tokens = slice(*(None if end is None else end * SEQUENCE for end in (rows.start, rows.stop)))
    layers = {
        name: tuple(layer[tokens] if name == "router_logits" else layer[rows] for layer in tensor)
        for name, tensor in signals.items()
        if name != "logits"
    }
    return ModelOutput.from_logits(signals["logits"][rows], **layers)


def labels() -> Tensor:
    """Sequences with 4, 2, 1, 1 and 0 predictions: four are live, and every share is a power of two."""
    result = torch.full((BATCH, SEQUENCE), IGNORED)
    generator = torch.Generator().manual_seed(3)
    tokens = torch.randint(0, VOCABULARY, (BATCH, SEQUENCE), generator=generator)
    for row, columns in enumerate([(2, 3, 5, 6), (4, 7), (1,), (7,), ()]):
        result[row, list(columns)] = tokens[row, list(columns)]
    return result


def attention() -> Tensor:
    """int64 `[batch, seq]`: the last sequence is padding."""
    mask = torch.ones(BATCH, SEQUENCE, dtype=torch.long)
    mask[-1] = 0
    return mask


def targets() -> Targets:
    """Of the whole batch."""
    return Targets.from_labels(labels(), attention())


def part_of_a_step(rows: slice) -> Targets:
    """Targets of some sequences, whose means are those of the whole batch as one optimizer step."""
    whole, part = targets(), Targets.from_labels(labels()[rows], attention()[rows])
    masks = {
        name: PositionMask(getattr(part, name).mask, getattr(whole, name).positions, getattr(whole, name).sequences)
        for name in ("tokens", "predictions", "attention")
    }
    return Targets(part.labels, **masks)


def gradients(value: Tensor, signals: dict[str, Tensor]) -> dict[str, Tensor]:
    """Of `value`, zero where a signal was not used."""
    found = torch.autograd.grad(value, list(signals.values()), allow_unused=True, materialize_grads=True)
    return dict(zip(signals, found, strict=True))
