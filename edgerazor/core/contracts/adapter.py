"""What a model family's adapter implements."""

from collections.abc import Callable, Iterator, Mapping, Set
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from edgerazor.core.contracts.loss import Signal

if TYPE_CHECKING:
    from torch import Tensor, nn

    from edgerazor.core.outputs import Head, ModelOutput


@dataclass(frozen=True)
class TensorRole:
    """The part a parameter plays in its model, so that exporters map roles, not names.

    Attributes:
        kind: "embedding", "head", "q", "k", "v", "o", "gate", "up", "down", "attention_norm", "mlp_norm", "q_norm",
            "k_norm", "final_norm" or "other"; a bias has `bias` set.
        layer: index of the decoder layer, None outside the layers.
        parts: rows of the logical matrices a fused one consists of, in order; empty if it is not fused.
    """

    kind: str
    layer: int | None = None
    bias: bool = False
    parts: tuple[int, ...] = ()


@dataclass(frozen=True)
class Rotary:
    """Rotary embedding of a model: rotated width, base, and the inverse frequencies as a tensor."""

    head_dim: int
    theta: float
    inverse_frequencies: "Tensor"
    attention_scaling: float = 1.0


class ArchitectureAdapter(Protocol):
    """What differs between model families.

    `signals` are those `forward` can give; a loss that needs another one is refused before training. It may have
    `text_config(config)`, the language model's configuration as losses see it, where that is not
    `config.get_text_config()`: `num_hidden_layers` counts the hidden states of a forward pass, less one. With
    `keeps_layers` true, `forward` also takes `layers`, the hidden states that are read; it may leave the others empty.
    """

    signals: Set[Signal]

    def quantizable(self, model: "nn.Module") -> Iterator[tuple[str, "nn.Module"]]:
        """Modules that may be quantized, with their full names."""

    def forward(
        self,
        model: "nn.Module",
        batch: Mapping[str, Any],
        signals: Set[Signal],
        *,
        inside_head: "Callable[[Tensor, Head], Tensor] | None" = None,
    ) -> "ModelOutput":
        """Run the (possibly wrapped) model and return what `signals` ask for.

        `inside_head(final_hidden, head)` runs while the output head's own forward runs, so that wrappers that shard
        parameters see an ordinary forward; what it returns is `ModelOutput.inside_head`.
        """

    def role(self, parameter_name: str) -> TensorRole:
        """The part a parameter plays."""

    def rotary(self, model: "nn.Module") -> Rotary:
        """Where and how positions are rotated."""
