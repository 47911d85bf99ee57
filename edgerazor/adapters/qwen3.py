"""Qwen3: a decoder like Llama's with norms on queries and keys, dense or as a mixture of experts."""

from collections.abc import Iterator, Mapping, Set
from dataclasses import replace
from typing import Any, ClassVar

from torch import Tensor, nn
from transformers.models.qwen3_moe.modeling_qwen3_moe import load_balancing_loss_func

from edgerazor.adapters.config_facts import text_values
from edgerazor.adapters.decoder import DecoderAdapter
from edgerazor.core.contracts import GGUFArchitecture, ModelFacts, Signal, TensorRole
from edgerazor.core.layers.experts import fused_experts

_EXPERT_PARTS = {".mlp.experts.gate_up_proj": "expert_gate_up", ".mlp.experts.down_proj": "expert_down"}


class Qwen3Adapter(DecoderAdapter):
    """Dense Qwen3 models."""

    def facts(self, config: Any) -> ModelFacts:
        """What the configuration says, and norms on the queries and keys of each head."""
        stated = super().facts(config)
        return replace(stated, qk_norm="per_head", gguf=GGUFArchitecture("qwen3"), genai="qwen3")


class Qwen3MoEAdapter(Qwen3Adapter):
    """Qwen3 mixtures of experts: the matrices of all experts of a layer lie in two parameters; routers stay float."""

    signals: ClassVar = DecoderAdapter.signals | {Signal.ROUTER_LOGITS}

    def facts(self, config: Any) -> ModelFacts:
        """As for dense models, and how the matrices of an expert lie in one parameter."""
        rows = int(text_values(config)["moe_intermediate_size"])
        fused = {"expert_gate_up": (("gate", rows), ("up", rows))}
        return replace(super().facts(config), fused=fused, gguf=GGUFArchitecture("qwen3moe"), genai=None)

    def quantizable(self, model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
        """Linear layers and embeddings, and the fused matrices of the experts under the names of their parameters."""
        yield from super().quantizable(model)
        yield from fused_experts(model)

    def role(self, parameter_name: str) -> TensorRole:
        """As for dense models; `expert_gate_up`, `expert_down` and `router` besides."""
        plain = super().role(parameter_name)
        name = parameter_name.removesuffix(".weight")
        if name.endswith(".mlp.gate"):
            return TensorRole("router", plain.layer)
        kind = next((kind for suffix, kind in _EXPERT_PARTS.items() if name.endswith(suffix)), plain.kind)
        return TensorRole(kind, plain.layer, plain.bias)

    def _arguments(self, batch: Mapping[str, Any], signals: Set[Signal]) -> dict[str, Any]:
        return {**super()._arguments(batch, signals), "output_router_logits": Signal.ROUTER_LOGITS in signals}

    def _balancing_signals(self, config: Any) -> Set[Signal]:
        return {Signal.ROUTER_LOGITS} if config.output_router_logits else frozenset()

    def _balancing_loss(self, config: Any, output: Any, batch: Mapping[str, Any]) -> Tensor | None:
        """The model's own formula over real tokens: of packed rows, the model does not know what is padding."""
        if not config.output_router_logits or not output.router_logits:
            return None
        mask = batch.get("token_mask", batch.get("attention_mask"))
        share = load_balancing_loss_func(output.router_logits, config.num_experts, config.num_experts_per_tok, mask)
        return config.router_aux_loss_coef * share  # type: ignore[no-any-return]
