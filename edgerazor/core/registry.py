"""What is declared, and how a declaration becomes an object. No global state: a registry is passed on."""

import importlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgerazor.core.contracts import ClassifierRuntime, Runtime
from edgerazor.core.contracts.check import check_class, check_members
from edgerazor.errors import PluginError
from edgerazor.schemas.base import nearest
from edgerazor.schemas.components import AdapterParams, ComponentParams, ExporterParams, Kind, unknown_component


@dataclass
class Plugin:
    """One plugin as found: where it comes from, what it declares, and why it is unusable if it is."""

    namespace: str
    module: str
    version: str
    components: list[tuple[Kind, str]] = field(default_factory=list)
    error: str | None = None
    built_in: bool = False


@dataclass(frozen=True)
class Component:
    """A declared component and the plugin it comes from."""

    params: type[ComponentParams]
    namespace: str
    module: str

    @property
    def name(self) -> str:
        return self.params.component_name()


class Registry:
    """Components by kind and name. Made by `load_plugins`."""

    def __init__(self, components: dict[tuple[Kind, str], Component], plugins: list[Plugin]):
        self._components = components
        self.plugins = plugins
        self._models_registered = False

    def __deepcopy__(self, memo: Any) -> "Registry":
        """The registry itself: it does not change, and transformers copies the configurations that hold it."""
        return self

    def names(self, kind: Kind) -> list[str]:
        """Names of all declared components of one kind."""
        return sorted(name for declared_kind, name in self._components if declared_kind == kind)

    def declared(self, kind: Kind, name: str) -> type[ComponentParams] | None:
        """The parameter class of that name, or None."""
        component = self._components.get((kind, name))
        return component.params if component else None

    def params(self, kind: Kind, name: str, **values: Any) -> Any:
        """Validated parameters of a component, for building one outside a recipe."""
        declared = self.declared(kind, name)
        if declared is None:
            raise PluginError(unknown_component(self, kind, name))
        return declared.model_validate({"name": name, **values}, context={"registry": self})

    def why_missing(self, kind: Kind, name: str) -> str | None:
        """Why a namespaced name is unknown: its plugin is broken, lacks it, or is absent. None for bare names."""
        namespace, dot, _ = name.partition(".")
        if not dot:
            return None
        plugin = next((plugin for plugin in self.plugins if plugin.namespace == namespace), None)
        if plugin is None:
            return f"no plugin '{namespace}' is installed"
        if plugin.error:
            return f"plugin '{namespace}' is broken: {plugin.error}"
        offered = [other for other_kind, other in plugin.components if other_kind == kind]
        return f"plugin '{namespace}' does not have it{nearest(name, offered)}"

    def adapter_declarations(self) -> list[type[AdapterParams]]:
        """All declared adapters."""
        return [component.params for (kind, _), component in self._components.items() if kind == "adapter"]  # type: ignore[misc]

    def exporter_declarations(self) -> list[type[ExporterParams]]:
        """All declared exporters, by name."""
        named = sorted((name, component) for (kind, name), component in self._components.items() if kind == "exporter")
        return [component.params for _, component in named]  # type: ignore[misc]

    def adapter_for(self, model_type: str) -> Any:
        """Build the adapter that covers a model type.

        Raises:
            PluginError: no adapter covers it; the message lists what is covered.
        """
        for declared in self.adapter_declarations():
            if model_type in declared.model_types:
                return self.build(declared(name=declared.component_name()))
        known = [name for declared in self.adapter_declarations() for name in declared.model_types]
        raise PluginError(f"no adapter covers model type '{model_type}'{nearest(model_type, known)}")

    def register_models(self) -> None:
        """Make transformers know the model types that adapters bring classes for; safe to call again.

        Raises:
            PluginError: such a class cannot be imported.
        """
        if self._models_registered:
            return
        for declared in self.adapter_declarations():
            if declared.registers:
                self._import(f"adapter '{declared.component_name()}'", declared.registers)()
        self._models_registered = True

    def build(self, params: ComponentParams) -> Any:
        """Import the code behind `params` and construct it; nested components are built first, passed by field name.

        Raises:
            PluginError: the code cannot be imported or built, or does not keep its contract.
        """
        nested = {
            field: self.build(value)
            for field in type(params).model_fields
            if isinstance(value := getattr(params, field), ComponentParams)
        }
        code = self._import(f"{params.kind} '{params.name}'", params.target)
        check_class(code, params.kind, params.target)
        try:
            built = code(params, **nested)
        except TypeError as error:
            raise PluginError(f"{params.target} cannot be built from its parameters: {error}") from error
        check_members(built, params.kind, params.target)
        return built

    def runtime(self, exporter: str, path: Path) -> Runtime | ClassifierRuntime | None:
        """What runs the models of an exporter, loaded with the one at `path`; None if the exporter has none.

        Raises:
            PluginError: there is no such exporter, its engine cannot be imported, or is neither a `Runtime` nor a
                `ClassifierRuntime`.
        """
        declared = {params.component_name(): params for params in self.exporter_declarations()}.get(exporter)
        if declared is None:
            raise PluginError(unknown_component(self, "exporter", exporter))
        if not declared.runtime:
            return None
        engine = self._import(f"exporter '{exporter}'", declared.runtime)
        runtime = engine(path)
        if not isinstance(runtime, Runtime | ClassifierRuntime):
            raise PluginError(f"exporter '{exporter}': {declared.runtime} gives no Runtime of edgerazor.core.contracts")
        return runtime

    def versions(self) -> dict[str, str]:
        """Version of every third-party plugin, by namespace."""
        return {plugin.namespace: plugin.version for plugin in self.plugins if not plugin.built_in}

    def _import(self, who: str, target: str) -> Any:
        module_name, _, attribute = target.partition(":")
        try:
            return getattr(importlib.import_module(module_name), attribute)
        except Exception as error:
            reason = (
                str(error) if isinstance(error, (ImportError, AttributeError)) else f"{type(error).__name__}: {error}"
            )
            raise PluginError(f"{who}: cannot import {target}: {reason}") from error
