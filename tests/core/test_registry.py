"""The registry: names, parameters, and how a declaration becomes an object that keeps its protocol."""

from typing import Any, ClassVar, Literal

import pytest

from edgerazor.core import contracts
from edgerazor.core.contracts import Signal
from edgerazor.core.registry import Component, Registry
from edgerazor.errors import PluginError
from edgerazor.schemas.components import ComponentParams, ExporterParams, LossParams, QuantizerParams, SelectorSlot


class HalfParams(QuantizerParams):
    target: ClassVar[str] = f"{__name__}:Half"
    name: Literal["test.half"] = "test.half"


class Half:
    """Lacks fake_quantize."""

    rows_independent = True

    def __init__(self, params: HalfParams):
        self.params = params

    def check_shape(self, shape: tuple[int, ...]) -> None: ...

    def widths(self, shape: tuple[int, ...]) -> dict[int, int]:
        return {}

    def quantize(self, x: Any) -> Any: ...


class NestedParams(LossParams):
    target: ClassVar[str] = f"{__name__}:Nested"
    name: Literal["test.nested"] = "test.nested"
    layers: SelectorSlot


class Nested:
    signals = frozenset({Signal.HIDDEN_STATES})

    def __init__(self, params: NestedParams, *, layers: contracts.LayerSelector):
        self.params, self.layers = params, layers

    def __call__(self, student: Any, teacher: Any, targets: Any) -> Any: ...


class ForgetfulParams(NestedParams):
    target: ClassVar[str] = f"{__name__}:Forgetful"
    name: Literal["test.forgetful"] = "test.forgetful"  # type: ignore[assignment]


class Forgetful:
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
    found |= {(one.kind, one.component_name()): Component(one, "test", __name__) for one in ours}
    return Registry(found, registry.plugins)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["quantizer", "loss", "selector", "adapter"])
def test_every_built_in_component_builds_and_keeps_its_protocol(kind: Any, registry: Registry) -> None:
    needed = {"int": {"bits": 4}, "sqmp": {"high_ratio": 0.125}, "fixed": {"layers": [-1]}}
    layerwise = ("feature_mse", "feature_cosine", "attention_relation", "key_value_relation")
    nested = {name: {"layers": {"name": "lafd"}} for name in layerwise}
    for name in registry.names(kind):
        declared = registry.declared(kind, name)
        assert declared is not None
        required = {key for key, field in declared.model_fields.items() if field.is_required()}
        values = (needed | nested).get(name, {})
        assert required <= set(values), f"give {name} its required parameters in this test"
        built = registry.build(registry.params(kind, name, **values))
        assert isinstance(built, contracts.BASE_CLASSES.get(kind, object))
        for member in contracts.REQUIRED_MEMBERS.get(kind, ()):
            assert hasattr(built, member)


def test_a_missing_member_is_named(extended: Registry) -> None:
    with pytest.raises(PluginError) as caught:
        extended.build(HalfParams())
    assert str(caught.value) == f"{__name__}:Half is not a Quantizer: it lacks fake_quantize"


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


class Unfinished(contracts.Exporter[contracts.ExportPlan]):
    def plan(self, checkpoint: Any, tensors: Any) -> contracts.ExportPlan:
        return contracts.ExportPlan()

    def write(self, checkpoint: Any, plan: Any, path: Any) -> None: ...


def test_an_exporter_is_a_whole_subclass(registry: Registry) -> None:
    with pytest.raises(
        PluginError, match=r"Outsider is not an Exporter: it is no subclass of edgerazor.core.contracts"
    ):
        registry.build(OutsiderParams(path="x"))
    with pytest.raises(PluginError, match=r"Unfinished cannot be built from its parameters: .*verify"):
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
