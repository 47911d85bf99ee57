"""What all decoder-only families share."""

import re
from collections.abc import Collection, Iterator, Mapping, Set
from contextlib import AbstractContextManager, nullcontext
from typing import Any, ClassVar

from torch import Tensor, nn

from edgerazor.adapters.config_facts import decoder_facts
from edgerazor.adapters.head import check_attentions, interceptable, observed_head, unwrapped
from edgerazor.adapters.hidden_states import HiddenStateRecorder
from edgerazor.core.contracts import ArchitectureAdapter, ModelFacts, Signal, TensorRole
from edgerazor.core.layers.attention import recorded_keys_and_values
from edgerazor.core.layers.linear import Interceptor
from edgerazor.core.layers.table import plain_layers
from edgerazor.core.outputs import ModelOutput

_LAYER = re.compile(r"(?:^|\.)layers\.(\d+)\.(.+)$")
_OUTER_PARTS = {"embed_tokens": "embedding", "lm_head": "head", "norm": "final_norm"}


class DecoderAdapter(ArchitectureAdapter):
    """Causal language models of transformers with `layers.N.self_attn` and `layers.N.mlp`.

    Attributes:
        inputs: entries of a batch that the model takes.
        kinds: names of the layer kinds that may be quantized; convolutions are front ends for other inputs than text.
        layer_parts: `{module inside a decoder layer: kind of its TensorRole}`.
    """

    keeps_layers: ClassVar = True
    signals: ClassVar = frozenset({Signal.LOGITS, Signal.HIDDEN_STATES, Signal.ATTENTIONS, Signal.KEYS, Signal.VALUES})
    inputs: ClassVar[tuple[str, ...]] = ("input_ids", "attention_mask", "position_ids")
    kinds: ClassVar[Collection[str]] = ("linear", "embedding")
    layer_parts: ClassVar[Mapping[str, str]] = {
        "self_attn.q_proj": "q",
        "self_attn.k_proj": "k",
        "self_attn.v_proj": "v",
        "self_attn.o_proj": "o",
        "self_attn.q_norm": "q_norm",
        "self_attn.k_norm": "k_norm",
        "mlp.gate_proj": "gate",
        "mlp.up_proj": "up",
        "mlp.down_proj": "down",
        "input_layernorm": "attention_norm",
        "post_attention_layernorm": "mlp_norm",
    }

    def facts(self, config: Any) -> ModelFacts:
        """What the keys say that configurations of transformers share; a family adds what they do not."""
        return decoder_facts(config)

    def quantizable(self, model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
        """Every plain linear layer and embedding; subclasses with a forward of their own are left out."""
        return plain_layers(model, self.kinds)

    def forward(
        self,
        model: nn.Module,
        batch: Mapping[str, Any],
        signals: Set[Signal],
        *,
        inside_head: Interceptor | None = None,
        layers: Collection[int] | None = None,
    ) -> ModelOutput:
        """Run the model as it is wrapped and keep what `signals` ask for; logits are never made here.

        Args:
            model: the model, or what accelerate, DDP or FSDP2 made of it.
            batch: `input_ids` and, where there are, `attention_mask` and `position_ids`.
            signals: what the losses need.
            inside_head: called with the final hidden state and the head while the head's own forward runs, so that
                wrappers that shard parameters see an ordinary forward; it returns a tensor that stands for the logits.
            layers: hidden states that are read, of a pass without gradients; the others are empty. None for all.

        Raises:
            PlanError: attentions, keys or values are asked for, but the model's attention implementation keeps none.
        """
        inner = unwrapped(model)
        recorder = HiddenStateRecorder.of(inner, layers) if Signal.HIDDEN_STATES in signals else None
        asked = signals if inside_head is None else signals | self._balancing_signals(inner.config)
        arguments = self._arguments(batch, asked - {Signal.HIDDEN_STATES} if recorder else asked)
        states_recorded = recorder.recorded() if recorder else nullcontext()
        divisor = self._logit_divisor(inner.config)
        with (
            observed_head(output_head(model), inside_head, divisor=divisor) as head_input,
            states_recorded,
            _kept_cache(inner, signals) as cache,
        ):
            output = model(**arguments)
        if Signal.ATTENTIONS in signals:
            check_attentions(output.attentions, model)
        assert head_input.hidden is not None
        states = recorder.with_final(head_input.hidden) if recorder else _asked(output, Signal.HIDDEN_STATES, signals)
        return ModelOutput(
            final_hidden=head_input.hidden,
            head=head_input.head,
            hidden_states=states,
            attentions=_asked(output, Signal.ATTENTIONS, signals),
            keys=tuple(key for key, _ in cache) if Signal.KEYS in signals else None,
            values=tuple(value for _, value in cache) if Signal.VALUES in signals else None,
            router_logits=_asked(output, Signal.ROUTER_LOGITS, signals),
            balancing_loss=self._balancing_loss(inner.config, output, batch),
            inside_head=None if inside_head is None else output.logits,
        )

    def _arguments(self, batch: Mapping[str, Any], signals: Set[Signal]) -> dict[str, Any]:
        """What the model is called with: those entries of the batch that it takes, and what it shall return."""
        return {
            **{key: value for key, value in batch.items() if key in self.inputs},
            "use_cache": False,
            "output_hidden_states": Signal.HIDDEN_STATES in signals,
            "output_attentions": Signal.ATTENTIONS in signals,
        }

    def _logit_divisor(self, config: Any) -> float:
        """What the model divides the product of its head by."""
        return 1.0

    def _balancing_signals(self, config: Any) -> Set[Signal]:
        """What the model has to give for its own balancing loss."""
        return frozenset()

    def _balancing_loss(self, config: Any, output: Any, batch: Mapping[str, Any]) -> Tensor | None:
        """A further loss that the model itself would add to its task; None for dense models."""
        return None

    def role(self, parameter_name: str) -> TensorRole:
        """Role by the names that Llama-style decoders of transformers share."""
        module, _, leaf = parameter_name.rpartition(".")
        module = module if leaf in ("weight", "bias") else parameter_name
        layer = _LAYER.search(module)
        if layer:
            return TensorRole(self.layer_parts.get(layer[2], "other"), int(layer[1]), leaf == "bias")
        return TensorRole(_OUTER_PARTS.get(module.rpartition(".")[2], "other"), None, leaf == "bias")


def _kept_cache(model: nn.Module, signals: Set[Signal]) -> AbstractContextManager[Any]:
    """Within the block keys and values of every layer are kept, if anybody asks for either."""
    wanted = bool(signals & {Signal.KEYS, Signal.VALUES})
    return recorded_keys_and_values(model) if wanted else nullcontext([])


def _asked(output: Any, signal: Signal, signals: Set[Signal]) -> Any:
    """What the model gives of a signal, if anybody asked for it."""
    return getattr(output, signal.value) if signal in signals else None


def output_head(model: nn.Module) -> Any:
    """The output projection, able to be intercepted; a plain linear head becomes so without changing its values."""
    return interceptable(unwrapped(model).get_output_embeddings())
