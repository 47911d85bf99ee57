"""The registry: names, parameters, and how a declaration becomes an object that keeps its protocol."""

from typing import Any, ClassVar, Literal

import pytest

from edgerazor.core.contracts import (
    DistillationLoss,
    Exporter,
    ExportPlan,
    LayerSelector,
    Quantizer,
    Signal,
    WeighsDivergences,
)
from edgerazor.core.contracts.check import CONTRACTS, is_one_edit_away, members
from edgerazor.core.registry import Component, Registry
from edgerazor.errors import PluginError
from edgerazor.schemas.components import ComponentParams, ExporterParams, LossParams, QuantizerParams, SelectorSlot


class HalfParams(QuantizerParams):
    target: ClassVar[str] = f"{__name__}:Half"
    name: Literal["test.half"] = "test.half"


class Half(Quantizer):
    """Lacks quantize."""

    def check_shape(self, shape: tuple[int, ...]) -> None: ...

    def widths(self, shape: tuple[int, ...]) -> dict[int, int]:
        return {}


class PlainLossParams(LossParams):
    target: ClassVar[str] = f"{__name__}:HalfADivergence"
    name: Literal["test.plain"] = "test.plain"


class NestedParams(LossParams):
    target: ClassVar[str] = f"{__name__}:Nested"
    name: Literal["test.nested"] = "test.nested"
    layers: SelectorSlot


class Nested(DistillationLoss):
    signals = frozenset({Signal.HIDDEN_STATES})

    def __init__(self, params: NestedParams, *, layers: LayerSelector):
        super().__init__(params)
        self.layers: LayerSelector = layers

    def __call__(self, student: Any, teacher: Any, targets: Any) -> Any: ...


class ForgetfulParams(NestedParams):
    target: ClassVar[str] = f"{__name__}:Forgetful"
    name: Literal["test.forgetful"] = "test.forgetful"  # type: ignore[assignment]


class Forgetful(Nested):
    def __init__(self, params: ForgetfulParams): ...


@pytest.fixture(scope="module")
def extended(registry: Registry) -> Registry:
    """The built-in components and those of this file."""
    found = {
        (kind, name): Component(declared, "edgerazor", "edgerazor.plugins")
        for kind in ("quantizer", "loss", "selector", "adapter")
        for name in registry.names(kind)  # type: ignore[arg-type]
        if (declared := registry.declared(kind, name))  # type: ignore[arg-type]
    }
    ours: list[type[ComponentParams]] = [HalfParams, NestedParams, ForgetfulParams]
    found |= {(declared.kind, declared.component_name()): Component(declared, "test", __name__) for declared in ours}
    return Registry(found, registry.plugins)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["quantizer", "loss", "selector", "adapter"])
def test_every_built_in_component_builds_and_keeps_its_protocol(kind: Any, registry: Registry) -> None:
    needed = {"int": {"bits": 4}, "unsigned_int": {"bits": 8}, "sqmp": {"high_ratio": 0.125}, "fixed": {"layers": [-1]}}
    layerwise = ("feature_mse", "feature_cosine", "attention_relation", "key_value_relation")
    nested = {name: {"layers": {"name": "lafd"}} for name in layerwise}
    for name in registry.names(kind):
        declared = registry.declared(kind, name)
        assert declared is not None
        required = {key for key, field in declared.model_fields.items() if field.is_required()}
        values = (needed | nested).get(name, {})
        assert required <= set(values), f"give {name} its required parameters in this test"
        assert isinstance(registry.build(registry.params(kind, name, **values)), CONTRACTS[kind])


def test_a_missing_member_is_named(extended: Registry) -> None:
    with pytest.raises(PluginError) as caught:
        extended.build(HalfParams())
    assert str(caught.value) == f"{__name__}:Half is not a whole Quantizer: it lacks quantize"


class Whole(Half):
    def quantize(self, x: Any) -> Any: ...


class OldStyle:
    """Everything a quantizer needs, without the base class."""

    def __init__(self, params: Any):
        self.params = params

    check_shape = widths = quantize = fake_quantize = lambda self, x: x
    rows_independent = True


class Misspelt(Whole):
    stored_width = None


class MisspeltOnTheInstance(Whole):
    def __init__(self, params: Any):
        super().__init__(params)
        self.symetric = False


class Unset(Whole):
    def __init__(self, params: Any): ...


class HalfADivergence(Nested):
    def __init__(self, params: Any):
        DistillationLoss.__init__(self, params)

    def divergence_weights(self, teacher_rows: Any, targets: Any) -> Any: ...


class WithoutTemperature(HalfADivergence, WeighsDivergences): ...


def with_target(params: Any, code: Any) -> Any:
    """The same parameters with other code behind them."""
    target = f"{__name__}:{code.__name__}"
    return type("Params", (params,), {"target": target, "__annotations__": {"target": ClassVar[str]}})()


@pytest.mark.parametrize(
    ("code", "said"),
    [
        (OldStyle, "OldStyle is no Quantizer; subclass edgerazor.Quantizer"),
        (Misspelt, "Misspelt: the member 'stored_width' looks like 'stored_widths' of Quantizer, misspelt; rename it"),
        (MisspeltOnTheInstance, "the member 'symetric' looks like 'symmetric' of Quantizer, misspelt; rename it"),
        (Unset, "Unset: 'params' of Quantizer cannot be read: 'Unset' object has no attribute 'params'"),
    ],
)
def test_a_quantizer_that_does_not_keep_its_contract(code: Any, said: str, registry: Registry) -> None:
    with pytest.raises(PluginError) as caught:
        registry.build(with_target(HalfParams, code))
    assert str(caught.value).startswith(f"{__name__}:{code.__name__}") and str(caught.value).endswith(said)


def test_what_is_heeded_of_another_class_only_is_refused(registry: Registry) -> None:
    with pytest.raises(PluginError, match=r"defines divergence_weights, which only edgerazor\.Weighs"):
        registry.build(with_target(PlainLossParams, HalfADivergence))


def test_a_weighted_divergence_needs_a_temperature(registry: Registry) -> None:
    with pytest.raises(PluginError, match=r"WithoutTemperature: 'temperature' of Weighs.* cannot be read"):
        registry.build(with_target(PlainLossParams, WithoutTemperature))


@pytest.mark.parametrize("kind", CONTRACTS)
def test_every_misspelling_of_a_member_is_noticed(kind: Any) -> None:
    for name in members(CONTRACTS[kind]):
        for place in range(len(name)):
            dropped, doubled = name[:place] + name[place + 1 :], name[:place] + name[place] + name[place:]
            swapped = name[:place] + name[place : place + 2][::-1] + name[place + 2 :]
            replaced = name[:place] + "~" + name[place + 1 :]
            for other in {dropped, doubled, swapped, replaced} - {name}:
                assert is_one_edit_away(other, name) and is_one_edit_away(name, other), (other, name)
        assert not is_one_edit_away(name, name) and not is_one_edit_away(f"{name}_x", name)


class OutsiderParams(ExporterParams):
    """An exporter that has every member and subclasses nothing."""

    target: ClassVar[str] = f"{__name__}:Outsider"
    name: Literal["test.outsider"] = "test.outsider"


class Outsider:
    def __init__(self, params: Any):
        self.params = params

    check = export = verify = None


class UnfinishedParams(ExporterParams):
    """An exporter that cannot read back what it writes."""

    target: ClassVar[str] = f"{__name__}:Unfinished"
    name: Literal["test.unfinished"] = "test.unfinished"


class Unfinished(Exporter[ExportPlan]):
    def plan(self, checkpoint: Any, tensors: Any) -> ExportPlan:
        return ExportPlan()

    def write(self, checkpoint: Any, plan: Any, path: Any) -> None: ...


def test_an_exporter_is_a_whole_subclass(registry: Registry) -> None:
    with pytest.raises(PluginError, match=r"Outsider is no Exporter; subclass edgerazor\.Exporter"):
        registry.build(OutsiderParams(path="x"))
    with pytest.raises(PluginError, match=r"Unfinished is not a whole Exporter: it lacks verify"):
        registry.build(UnfinishedParams(path="x"))


def test_nested_components_are_built_first_and_passed_by_name(extended: Registry) -> None:
    built = extended.build(extended.params("loss", "test.nested", layers={"name": "lafd", "top_k": 2}))
    assert isinstance(built, Nested)
    assert type(built.layers).__name__ == "LAFD"
    assert built.params.layers.top_k == 2  # type: ignore[attr-defined]


def test_a_constructor_that_takes_something_else(extended: Registry) -> None:
    params = extended.params("loss", "test.forgetful", layers="lafd")
    with pytest.raises(PluginError, match=r"Forgetful cannot be built from its parameters: .*'layers'"):
        extended.build(params)


@pytest.mark.parametrize(
    ("target", "reason"),
    [
        ("edgerazor_nowhere:X", "No module named 'edgerazor_nowhere'"),
        ("edgerazor.errors:X", "module 'edgerazor.errors' has no attribute 'X'"),
    ],
)
def test_code_that_cannot_be_imported(target: str, reason: str, registry: Registry) -> None:
    params = type("Params", (HalfParams,), {"target": target, "__annotations__": {"target": ClassVar[str]}})
    with pytest.raises(PluginError) as caught:
        registry.build(params())
    assert str(caught.value) == f"quantizer 'test.half': cannot import {target}: {reason}"


def test_unknown_names(registry: Registry) -> None:
    with pytest.raises(PluginError) as caught:
        registry.params("quantizer", "acme.fp4")
    assert str(caught.value) == "no quantizer named 'acme.fp4'; no plugin 'acme' is installed"
    with pytest.raises(PluginError, match=r"^no loss named 'eakd'; did you mean 'eakld'"):
        registry.params("loss", "eakd")
    with pytest.raises(PluginError, match=r"^no adapter covers model type 'qwen33'; did you mean 'qwen3'"):
        registry.adapter_for("qwen33")
    empty = Registry({}, [])
    with pytest.raises(PluginError, match=r"^no exporter named 'gguf'; no exporter is installed$"):
        empty.params("exporter", "gguf")


@pytest.mark.parametrize("model_type", ["qwen3", "llama"])
def test_adapters_are_found_by_model_type(model_type: str, registry: Registry) -> None:
    assert registry.adapter_for(model_type).role("model.layers.3.self_attn.q_proj.weight").layer == 3
