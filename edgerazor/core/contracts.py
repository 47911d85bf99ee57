"""What the code behind a declaration implements. Importing this module imports no torch."""

from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor, nn

    from edgerazor.core.outputs import Head, LossOutput, ModelOutput, Targets
    from edgerazor.core.tensor import QuantizedTensor
    from edgerazor.schemas.components import ComponentParams, LossParams


class Signal(Enum):
    """What a loss may ask of a forward pass; only what some loss asks for is computed."""

    LOGITS = "logits"
    HIDDEN_STATES = "hidden_states"
    ATTENTIONS = "attentions"
    KEYS = "keys"
    VALUES = "values"
    ROUTER_LOGITS = "router_logits"


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


class Quantizer(Protocol):
    """Turns numbers into codes and scales. Pure: it holds parameters, no state."""

    params: "ComponentParams"
    rows_independent: bool

    def check_shape(self, shape: tuple[int, ...]) -> None:
        """Raise PlanError if the last axis does not fit, naming the group sizes that would."""

    def widths(self, shape: tuple[int, ...]) -> Mapping[int, int]:
        """`{qmax: number of weights}` from the shape alone."""

    def quantize(self, x: "Tensor") -> "QuantizedTensor":
        """Codes and scales of `x [..., C]`; the only place that rounds."""

    def fake_quantize(self, x: "Tensor") -> "Tensor":
        """`quantize(x).dequantize(x.dtype)` bit for bit; the gradient passes straight through."""


class DistillationLoss(Protocol):
    """One term of the total; its value holds `params.weight` and the reduction.

    What it may have besides:

    - `divergence_weights(teacher_rows, targets) -> (forward [N], reverse [N])`, weight and reduction included, if it is
      a weighted sum of forward and reverse KL per position; it is then computed with all others of its temperature in
      one fused pass;
    - `teacher_signals`, if it needs other signals of the teacher than of the student;
    - `teacher_layers(layers)`, the only hidden states it reads of a teacher with that many layers, or None for any;
    - `check_models(student_config, teacher_config)`, which raises PlanError for models it cannot compare;
    - `module`, an `nn.Module` that is trained with the student, saved with the optimizer and never exported.
    """

    params: "LossParams"
    signals: Set[Signal]

    def __call__(self, student: "ModelOutput", teacher: "ModelOutput", targets: "Targets") -> "LossOutput": ...


def teacher_signals(loss: DistillationLoss) -> Set[Signal]:
    """What a loss reads of the teacher: what it says, or the same as of the student."""
    found: Set[Signal] = getattr(loss, "teacher_signals", loss.signals)
    return found


class LayerSelector(Protocol):
    """Chooses hidden states: weights `[L+1]` on the device that sum to 1; zero means not compared.

    What it may have besides:

    - `reads_states`, False if the choice does not depend on the batch; `fixed_layers(layers)` then gives the ascending
      indices for a teacher of that many decoder layers, and only those are computed;
    - `lowest_layer`, below which it never chooses (0 if it does not say);
    - `check_layers(layers)`, which raises PlanError for a depth it cannot serve;
    - `calibration_batches`, how many batches it wants to `observe(hidden_states, mask)` before the first step, after
      which `settle(layers=None)` fixes its layers, `settled`; a resumed run gives them back.
    """

    def weights(self, hidden_states: tuple["Tensor", ...], mask: "Tensor") -> "Tensor": ...


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


class Checkpoint(Protocol):
    """A packed folder, opened; tensors are read one by one."""

    folder: Path
    config: Mapping[str, Any]
    recipe: Mapping[str, Any]
    digest: str

    def names(self) -> Iterator[str]: ...

    def read(self, name: str) -> "Tensor | QuantizedTensor": ...

    def role(self, name: str) -> TensorRole: ...


@dataclass(frozen=True)
class ExportReport:
    """What an export wrote."""

    path: Path
    bytes: int
    bits_per_weight: float
    details: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class VerifyReport:
    """What a verification read back: tensors compared and the names of those that differ."""

    tensors: int
    different: tuple[str, ...] = ()


class Exporter(Protocol):
    """Writes a packed checkpoint to another format without rounding.

    It may have an attribute `progress: Progress | None`, which is set while there is somebody to look at it. Its
    parameters may declare `suffixes`, `magic` or `marker` (a file inside a folder), by which `edgerazor verify` knows
    its files, and `runtime`, the import path of a `Runtime` that is built from the path of an exported model.
    """

    params: "ComponentParams"

    def check(self, checkpoint: Checkpoint) -> None:
        """Raise ExportError that lists every tensor that does not fit, before a byte is written."""

    def export(self, checkpoint: Checkpoint, path: Path) -> ExportReport: ...

    def verify(self, path: Path, checkpoint: Checkpoint) -> VerifyReport: ...


class Runtime(Protocol):
    """An exported model, loaded by the engine that it was exported for, with its cache and its own tokenizer.

    Attributes:
        engine: name and version, for people.
        vocabulary_size: width of the logits.
        context_length: at most this many tokens between two `restart`s.
        stop_ids: tokens that end a text.
        recipe: that the model was made by, as it stands in the file; empty if it does not say.
    """

    engine: str
    recipe: Mapping[str, Any]
    vocabulary_size: int
    context_length: int
    stop_ids: frozenset[int]

    def encode(self, text: str, *, chat: bool | None = None) -> list[int]:
        """Token ids of a text; `chat` as in `GenerationSettings`.

        Raises:
            ExportError: `chat` is True and the model has no chat template.
        """

    def decode(self, ids: Sequence[int]) -> str:
        """Text of tokens, special ones left out."""

    def restart(self) -> None:
        """Forget all tokens."""

    def feed(self, ids: Sequence[int], *, every: bool = False) -> "NDArray[np.float32]":
        """Go on by these tokens; logits `[1, vocabulary]` of the last one, or `[len(ids), vocabulary]` of every one.

        Raises:
            ExportError: more tokens than the context holds, or `every` of a file that computes the last one only.
        """

    def close(self) -> None:
        """Give memory back."""


Progress = Callable[[str, int, int], None]

REQUIRED_MEMBERS: dict[str, tuple[str, ...]] = {
    "quantizer": ("params", "rows_independent", "check_shape", "widths", "quantize", "fake_quantize"),
    "loss": ("params", "signals", "__call__"),
    "selector": ("weights",),
    "adapter": ("signals", "quantizable", "forward", "role", "rotary"),
    "exporter": ("params", "check", "export", "verify"),
}
PROTOCOL_NAMES = {
    "quantizer": "a Quantizer",
    "loss": "a DistillationLoss",
    "selector": "a LayerSelector",
    "adapter": "an ArchitectureAdapter",
    "exporter": "an Exporter",
}
