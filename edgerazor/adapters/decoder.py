"""What all decoder-only families share."""

import re
from collections.abc import Collection, Iterator, Mapping, Set
from contextlib import nullcontext
from typing import Any, ClassVar

from torch import Tensor, nn

from edgerazor.adapters.hidden_states import FewStates
from edgerazor.core.contracts import Rotary, Signal, TensorRole
from edgerazor.core.layers.attention import recorded_keys_and_values
from edgerazor.core.layers.linear import Interceptor, ProjectionLayer, make_linear
from edgerazor.core.layers.table import is_plain
from edgerazor.core.outputs import Head, ModelOutput
from edgerazor.errors import PlanError
from edgerazor.schemas.components import AdapterParams

_LAYER = re.compile(r"(?:^|\.)layers\.(\d+)\.(.+)$")
_LAYER_PARTS = {
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
_OUTER_PARTS = {"embed_tokens": "embedding", "lm_head": "head", "norm": "final_norm"}


class DecoderAdapter:
    """Causal language models of transformers with `layers.N.self_attn` and `layers.N.mlp`."""

    keeps_layers: ClassVar = True
    signals: ClassVar = frozenset({Signal.LOGITS, Signal.HIDDEN_STATES, Signal.ATTENTIONS, Signal.KEYS, Signal.VALUES})
    inputs: ClassVar[tuple[str, ...]] = ("input_ids", "attention_mask", "position_ids")

    def __init__(self, params: AdapterParams):
        self.params = params

    def quantizable(self, model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
        """Every plain linear layer and embedding; subclasses with a forward of their own are left out."""
        for name, module in model.named_modules():
            if is_plain(module):
                yield name, module

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
        head_module = output_head(model)
        captured: dict[str, Any] = {}
        record: Any = nullcontext([])
        if signals & {Signal.KEYS, Signal.VALUES}:
            record = recorded_keys_and_values(unwrapped(model))

        def intercept(hidden: Tensor, head: Head) -> Tensor:
            captured["final_hidden"], captured["head"] = hidden, head
            return hidden[:, :1] if inside_head is None else inside_head(hidden, head)

        config = unwrapped(model).config
        few = FewStates.of(unwrapped(model), layers) if Signal.HIDDEN_STATES in signals else None
        asked = signals if inside_head is None else signals | self._balancing_signals(config)
        arguments = self._arguments(batch, asked - {Signal.HIDDEN_STATES} if few else asked)
        head_module.interceptor = intercept
        try:
            with record as keys_and_values, few.recorded() if few else nullcontext():
                output = model(**arguments)
        finally:
            head_module.interceptor = None
        if Signal.ATTENTIONS in signals:
            _check_attentions(output.attentions, model)
        final = captured["final_hidden"]
        return ModelOutput(
            final_hidden=final,
            head=captured["head"],
            hidden_states=few.with_final(final) if few else _asked(output, Signal.HIDDEN_STATES, signals),
            attentions=_asked(output, Signal.ATTENTIONS, signals),
            keys=tuple(key for key, _ in keys_and_values) if Signal.KEYS in signals else None,
            values=tuple(value for _, value in keys_and_values) if Signal.VALUES in signals else None,
            router_logits=_asked(output, Signal.ROUTER_LOGITS, signals),
            balancing_loss=self._balancing_loss(config, output, batch),
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
            return TensorRole(_LAYER_PARTS.get(layer[2], "other"), int(layer[1]), leaf == "bias")
        return TensorRole(_OUTER_PARTS.get(module.rpartition(".")[2], "other"), None, leaf == "bias")

    def rotary(self, model: nn.Module) -> Rotary:
        """RoPE of the whole head dimension, one table for all layers."""
        config: Any = model.config
        module: Any = model.get_submodule("model.rotary_emb")
        head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        return Rotary(head_dim, config.rope_parameters["rope_theta"], module.inv_freq, module.attention_scaling)


def _asked(output: Any, signal: Signal, signals: Set[Signal]) -> Any:
    """What the model gives of a signal, if anybody asked for it."""
    return getattr(output, signal.value) if signal in signals else None


def output_head(model: nn.Module) -> Any:
    """The output projection, able to be intercepted; a plain linear head becomes so without changing its values."""
    head = unwrapped(model).get_output_embeddings()
    if type(head) is nn.Linear:
        make_linear(head, None, None)
    if not isinstance(head, ProjectionLayer):
        raise PlanError(f"the output head is {type(head).__name__}; only linear heads can be distilled")
    return head


def unwrapped(model: nn.Module) -> Any:
    """The transformers model inside what data-parallel wrappers made of it."""
    inner: Any = model
    while not hasattr(inner, "get_output_embeddings") and hasattr(inner, "module"):
        inner = inner.module
    return inner


def _check_attentions(attentions: Any, model: nn.Module) -> None:
    if not attentions or any(one is None for one in attentions):
        config = unwrapped(model).config
        implementation = getattr(config, "_attn_implementation", None)
        raise PlanError(
            f"a loss compares attentions, but the {config.model_type} model runs with attention '{implementation}', "
            "which keeps none; load it with eager attention"
        )
