"""What a model family's adapter implements."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Set
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from edgerazor.core.contracts.facts import ModelFacts
from edgerazor.core.contracts.loss import Signal
from edgerazor.schemas.components import AdapterParams

if TYPE_CHECKING:
    from torch import Tensor, nn

    from edgerazor.core.outputs import Head, ModelOutput


@dataclass(frozen=True)
class TensorRole:
    """The part a parameter plays in its model, so that exporters map roles, not names.

    Attributes:
        kind: "embedding", "head", "q", "k", "v", "o", "gate", "up", "down"; the norms "attention_norm" and "mlp_norm"
            before attention and MLP, "attention_output_norm" and "mlp_output_norm" behind them, "q_norm", "k_norm",
            "final_norm"; a key of `ModelFacts.fused` for matrices that lie in one parameter; else "other".
        layer: index of the decoder layer, None outside the layers.
        bias: it is the bias of the matrix that plays the part.
    """

    kind: str
    layer: int | None = None
    bias: bool = False


class ArchitectureAdapter(ABC):
    """What differs between model families.

    Attributes:
        signals: those that `forward` can give; a loss that needs another one is refused before training.
        keeps_layers: `forward` also takes `layers`, the numbers of the hidden states that are read, or None for all;
            it may leave the others empty.
        params: its declaration.
    """

    signals: ClassVar[Set[Signal]]
    keeps_layers: ClassVar[bool] = False

    def __init__(self, params: AdapterParams):
        self.params: Any = params

    @abstractmethod
    def facts(self, config: Any) -> ModelFacts:
        """Sizes, positions, norms and names of the language model.

        Args:
            config: the content of config.json, or the transformers configuration made from it.

        Raises:
            CheckpointError: keys are missing or hold no numbers; there is a line for each.
        """

    @abstractmethod
    def quantizable(self, model: "nn.Module") -> Iterator[tuple[str, "nn.Module"]]:
        """Modules that may be quantized, with their full names."""

    @abstractmethod
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

    @abstractmethod
    def role(self, parameter_name: str) -> TensorRole:
        """The part a parameter plays."""

    def text_config(self, config: Any) -> Any:
        """The language model's configuration as losses see it.

        Its `num_hidden_layers` is the number of hidden states of a forward pass, less one.
        """
        return config.get_text_config() if hasattr(config, "get_text_config") else config

    def why_left_out(self, name: str) -> str | None:
        """Why the matrix of that module is never quantized, for the notes of a plan; None if it may be."""
        return None
