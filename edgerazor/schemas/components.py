"""Declarations of components: what a plugin registers, and the slots of a recipe that take one.

A declaration is a parameter schema. It names the component (`name`) and where its code lives (`target`), so registering
imports no heavy library: the code is imported when the component is built.
"""

from collections.abc import Collection, Iterable, Mapping
from typing import Annotated, Any, ClassVar, Literal, Protocol

from pydantic import Field, SerializeAsAny, ValidationInfo, WithJsonSchema, WrapValidator

from edgerazor.schemas.base import Schema, problem
from edgerazor.schemas.messages import describe, nearest

Kind = Literal["quantizer", "loss", "selector", "adapter", "exporter"]
Reduction = Literal["sequence_mean", "token_mean", "sum"]


class ComponentParams(Schema):
    """Parameters of one component; subclasses give `name` a `Literal` type and a default."""

    kind: ClassVar[Kind]
    target: ClassVar[str]
    name: str

    @classmethod
    def component_name(cls) -> str:
        """The name a recipe uses."""
        return str(cls.model_fields["name"].default)

    def summary(self) -> str:
        """Name and what differs from the defaults, as in `int group_size=32 bits=4`."""
        values = self.model_dump(exclude_defaults=True, exclude={"name"})
        return " ".join([self.name, *(f"{key}={value}" for key, value in values.items())])

    @classmethod
    def _describe(cls) -> str:
        return f"{cls.kind} '{cls.component_name()}'"


class QuantizerParams(ComponentParams):
    """Parameters of a quantizer. `group_size` columns share one scale; null means one scale per row."""

    kind: ClassVar[Kind] = "quantizer"
    group_size: Annotated[int, Field(ge=1)] | None = None


class LossParams(ComponentParams):
    """Parameters of a distillation loss; `weight` is its factor in the total."""

    kind: ClassVar[Kind] = "loss"
    weight: Annotated[float, Field(ge=0)] = 1.0


class SelectorParams(ComponentParams):
    """Parameters of a layer selector."""

    kind: ClassVar[Kind] = "selector"


class GroupSizes(Schema):
    """Columns that share one scale, for weights, activations and the key/value cache."""

    title: ClassVar[str] = "group_sizes"
    weights: Annotated[int, Field(ge=1)]
    activations: Annotated[int, Field(ge=1)]
    kv_cache: Annotated[int, Field(ge=1)]


class PresetWeights(Schema):
    """Loss weights of one preset for one family (METHOD 5)."""

    task: float
    eakld: float
    feature: float


class AdapterParams(ComponentParams):
    """An adapter covers the `model_types` of config.json and declares the family's group sizes and preset weights.

    `registers` is the import path of a function that makes transformers know types it has no classes for, or "".
    `trained_parts` names, for a model type made of several models, the attribute of its configuration that belongs to
    the one that is trained. `renamed` says what the family calls modules that presets name, as in
    `{"k_proj": "qkv_proj"}`. `caches_keys` is False where presets have no keys and values to quantize; `layers` is the
    selector of their feature loss where the published one does not suit the family.
    """

    kind: ClassVar[Kind] = "adapter"
    model_types: ClassVar[tuple[str, ...]]
    registers: ClassVar[str] = ""
    trained_parts: ClassVar[Mapping[str, str]] = {}
    group_sizes: ClassVar[GroupSizes | None] = None
    presets: ClassVar[Mapping[str, PresetWeights]] = {}
    renamed: ClassVar[Mapping[str, str]] = {}
    caches_keys: ClassVar[bool] = True
    layers: ClassVar[Mapping[str, Any] | None] = None


class ExporterParams(ComponentParams):
    """Parameters of an exporter; `path` is where it writes.

    A written model is known by its first bytes (`magic`), by a file inside the folder (`marker`, or one of
    `other_markers`), or by `suffixes`. `runtime` is the import path of a `Runtime` or `ClassifierRuntime` that runs it,
    or of a function that gives one by the path; "" if there is none. `suits` says in a few words which
    devices and programs it is for; `edgerazor export --to` shows it.
    """

    kind: ClassVar[Kind] = "exporter"
    suffixes: ClassVar[tuple[str, ...]] = ()
    magic: ClassVar[bytes] = b""
    marker: ClassVar[str] = ""
    other_markers: ClassVar[tuple[str, ...]] = ()
    runtime: ClassVar[str] = ""
    suits: ClassVar[str] = ""
    path: str

    @classmethod
    def marks(cls, names: Collection[str]) -> bool:
        """Whether one of the names of files in a folder says that such an exporter wrote it."""
        return any(name in names for name in (cls.marker, *cls.other_markers) if name)


class Declarations(Protocol):
    """What the schemas need of a registry: it is passed in the validation context under `registry`."""

    def declared(self, kind: Kind, name: str) -> type[ComponentParams] | None: ...

    def names(self, kind: Kind) -> list[str]: ...

    def why_missing(self, kind: Kind, name: str) -> str | None: ...

    def adapter_declarations(self) -> Iterable[type[AdapterParams]]: ...


def unknown_component(registry: Declarations, kind: Kind, name: str) -> str:
    """Why a name is not declared, and the nearest one that is."""
    reason = registry.why_missing(kind, name) or nearest(name, registry.names(kind)).lstrip("; ")
    return f"no {kind} named '{name}'; {reason or f'no {kind} is installed'}"


def _slot(kind: Kind, defaults: Mapping[str, Any]) -> WrapValidator:
    def validate(value: Any, handler: Any, info: ValidationInfo) -> Any:
        if isinstance(value, ComponentParams):
            return value
        if isinstance(value, str):
            value = {"name": value}
        if not isinstance(value, Mapping):
            raise problem(f"expected a {kind} such as {{name: ...}}, got {describe(value)}")
        name = value.get("name")
        if not isinstance(name, str):
            raise problem(f"this {kind} has no 'name'")
        registry: Declarations | None = (info.context or {}).get("registry")
        if registry is None:
            raise problem(f"{kind} '{name}' cannot be looked up: no registry was given")
        declared = registry.declared(kind, name)
        if declared is None:
            raise problem(unknown_component(registry, kind, name))
        extra = {key: default for key, default in defaults.items() if key in declared.model_fields and key not in value}
        return declared.model_validate({**value, **extra}, context=info.context)

    return WrapValidator(validate)


def _json_schema(kind: Kind) -> WithJsonSchema:
    """A placeholder that `edgerazor schema` replaces by the registered classes."""
    return WithJsonSchema({"$component": kind})


QuantizerSlot = Annotated[SerializeAsAny[QuantizerParams], _slot("quantizer", {}), _json_schema("quantizer")]
ActivationSlot = Annotated[
    SerializeAsAny[QuantizerParams], _slot("quantizer", {"scale_dtype": "float32"}), _json_schema("quantizer")
]
LossSlot = Annotated[SerializeAsAny[LossParams], _slot("loss", {}), _json_schema("loss")]
SelectorSlot = Annotated[SerializeAsAny[SelectorParams], _slot("selector", {}), _json_schema("selector")]
ExporterSlot = Annotated[SerializeAsAny[ExporterParams], _slot("exporter", {}), _json_schema("exporter")]
