"""Adapters with one fault each, for a model type that the shared base covers."""

from collections.abc import Iterator, Mapping, Set
from dataclasses import replace
from typing import Any, ClassVar

from torch import nn

from edgerazor.adapters.decoder import DecoderAdapter
from edgerazor.core.contracts import ModelFacts, Rope, Signal, TensorRole
from edgerazor.core.outputs import ModelOutput
from edgerazor.testing import adapter as laws
from tests.testing.faults import law_of


@law_of(laws.what_can_be_quantized_is_a_matrix_of_the_model)
class GivingNorms(DecoderAdapter):
    def quantizable(self, model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
        yield from super().quantizable(model)
        yield "model.norm", model.get_submodule("model.norm")


@law_of(laws.what_can_be_quantized_is_a_matrix_of_the_model)
class NamingModulesInItsOwnWay(DecoderAdapter):
    def quantizable(self, model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
        return ((name.replace("self_attn", "attention"), module) for name, module in super().quantizable(model))


@law_of(laws.every_linear_layer_can_be_quantized_or_says_why_not)
class ForgettingTheLastMatrix(DecoderAdapter):
    def quantizable(self, model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
        return ((name, module) for name, module in super().quantizable(model) if not name.endswith("down_proj"))


@law_of(laws.every_matrix_has_its_role)
class WithoutRolesInsideLayers(DecoderAdapter):
    def role(self, parameter_name: str) -> TensorRole:
        role = super().role(parameter_name)
        return role if role.layer is None else replace(role, kind="other")


@law_of(laws.every_matrix_has_its_role)
class TakingKeysForQueries(DecoderAdapter):
    def role(self, parameter_name: str) -> TensorRole:
        return super().role(parameter_name.replace("k_proj", "q_proj"))


@law_of(laws.every_matrix_has_its_role)
class CountingLayersFromOne(DecoderAdapter):
    def role(self, parameter_name: str) -> TensorRole:
        role = super().role(parameter_name)
        return role if role.layer is None else replace(role, layer=role.layer + 1)


@law_of(laws.every_matrix_has_its_role)
class WithoutAHead(DecoderAdapter):
    def role(self, parameter_name: str) -> TensorRole:
        return super().role(parameter_name.replace("lm_head", "unknown"))


@law_of(laws.facts_are_those_of_the_model)
class TakingEveryHeadForAKeyHead(DecoderAdapter):
    def facts(self, config: Any) -> ModelFacts:
        facts = super().facts(config)
        return replace(facts, kv_heads=facts.heads)


@law_of(laws.facts_are_those_of_the_model)
class InventingNormsOfHeads(DecoderAdapter):
    def facts(self, config: Any) -> ModelFacts:
        return replace(super().facts(config), qk_norm="per_head")


@law_of(laws.facts_are_those_of_the_model)
class InventingABias(DecoderAdapter):
    def facts(self, config: Any) -> ModelFacts:
        return replace(super().facts(config), biases=frozenset({"down"}))


@law_of(laws.facts_are_those_of_the_model)
class RotatingByAnotherBase(DecoderAdapter):
    def facts(self, config: Any) -> ModelFacts:
        facts = super().facts(config)
        return replace(facts, ropes=(Rope(12345.0),) * facts.layers)


@law_of(laws.the_forward_pass_is_the_models_own)
class ForgettingTheMask(DecoderAdapter):
    inputs: ClassVar = ("input_ids",)


@law_of(laws.every_declared_signal_is_given)
class PromisingTooMuch(DecoderAdapter):
    signals: ClassVar = DecoderAdapter.signals | {Signal.ROUTER_LOGITS}

    def forward(self, model: nn.Module, batch: Mapping[str, Any], signals: Set[Signal], **options: Any) -> ModelOutput:
        return super().forward(model, batch, signals - {Signal.ROUTER_LOGITS}, **options)


@law_of(laws.every_declared_signal_is_given)
class GivingStatesWithoutTheEmbedding(DecoderAdapter):
    def forward(self, model: nn.Module, batch: Mapping[str, Any], signals: Set[Signal], **options: Any) -> ModelOutput:
        output = super().forward(model, batch, signals, **options)
        return replace(output, hidden_states=output.hidden_states and output.hidden_states[1:])


@law_of(laws.a_loss_inside_the_head_sees_what_one_outside_does)
class LosingWhatRanInside(DecoderAdapter):
    def forward(self, model: nn.Module, batch: Mapping[str, Any], signals: Set[Signal], **options: Any) -> ModelOutput:
        return replace(super().forward(model, batch, signals, **options), inside_head=None)


@law_of(laws.a_training_step_reaches_every_matrix)
class StoppingTheGradient(DecoderAdapter):
    def forward(self, model: nn.Module, batch: Mapping[str, Any], signals: Set[Signal], **options: Any) -> ModelOutput:
        hook = model.get_submodule("model").register_forward_hook(_detach)
        try:
            return super().forward(model, batch, signals, **options)
        finally:
            hook.remove()


@law_of(laws.packed_and_reloaded_it_gives_the_same_logits)
class ChangingTheModelWhileListingIt(DecoderAdapter):
    def quantizable(self, model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
        yield from super().quantizable(model)
        model.get_submodule("model.norm").variance_epsilon = 0.1


def _detach(module: nn.Module, arguments: Any, output: Any) -> Any:
    output.last_hidden_state = output.last_hidden_state.detach()
    return output


@law_of(laws.states_that_are_asked_for_are_given)
class KeepingTheStateBelow(DecoderAdapter):
    def forward(self, *arguments: Any, layers: Any = None, **options: Any) -> ModelOutput:
        below = None if layers is None else {max(layer - 1, 0) for layer in layers}
        return super().forward(*arguments, layers=below, **options)
