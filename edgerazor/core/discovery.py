"""Discovery of plugins: ours and third parties' come through the same door and are checked the same way."""

import importlib
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from functools import lru_cache
from importlib import metadata
from pathlib import Path
from typing import Any

import pluggy

from edgerazor.core import hookspecs
from edgerazor.core.registry import Component, Plugin, Registry
from edgerazor.errors import PluginError
from edgerazor.schemas.components import ComponentParams, Kind
from edgerazor.schemas.messages import nearest
from edgerazor.version import __version__

ENTRY_POINT_GROUP = "edgerazor"
BUILT_IN = ("edgerazor.plugins", "edgerazor.adapters")
_HOOKS: dict[str, Kind] = {
    "edgerazor_quantizers": "quantizer",
    "edgerazor_losses": "loss",
    "edgerazor_selectors": "selector",
    "edgerazor_adapters": "adapter",
    "edgerazor_exporters": "exporter",
}


def load_plugins(*, external: bool = True) -> Registry:
    """Load all plugins and return the registry of what they declare.

    A broken plugin does not stop the others: its error is kept in `registry.plugins`, and asking for one of its
    components names it.

    Args:
        external: False leaves third-party entry points out; only the built-in components are loaded.

    Raises:
        PluginError: two packages claim one namespace, a name is declared twice, two adapters claim one model type, or a
            built-in plugin is broken.
    """
    found = [Plugin("edgerazor", module, __version__, built_in=True) for module in BUILT_IN]
    if external:
        found += list(_discover())
    components: dict[tuple[Kind, str], Component] = {}
    for plugin in found:
        try:
            declared = _declarations(plugin)
        except Exception as error:
            if plugin.built_in:
                raise
            plugin.error = str(error) if isinstance(error, PluginError) else f"{type(error).__name__}: {error}"
            continue
        for component in declared:
            key = (component.params.kind, component.name)
            if key in components:
                raise PluginError(
                    f"{component.params.kind} '{component.name}' is declared twice: "
                    f"by {components[key].module} and by {plugin.module}"
                )
            components[key] = component
            plugin.components.append(key)
    _check_model_types(components)
    return Registry(components, found)


def own_version() -> str:
    """Version of edgerazor itself."""
    return __version__


def _discover() -> Iterator[Plugin]:
    owners: dict[str, str] = {}
    for point in _entry_points(tuple((path, _modified(path)) for path in sys.path)):
        owner = point.dist.name if point.dist else point.value
        if point.name in owners:
            raise PluginError(
                f"the plugin namespace '{point.name}' is claimed twice: by {owners[point.name]} and by {owner}; "
                "uninstall one of the two"
            )
        owners[point.name] = owner
        yield Plugin(point.name, point.value, point.dist.version if point.dist else "0+unknown")


@lru_cache(maxsize=1)
def _entry_points(paths: tuple[tuple[str, int], ...]) -> tuple[metadata.EntryPoint, ...]:
    """Those of all distributions, whose files are read again only once a folder of the path has changed."""
    return tuple(metadata.entry_points(group=ENTRY_POINT_GROUP))


def _modified(path: str) -> int:
    try:
        return Path(path or ".").stat().st_mtime_ns
    except OSError:
        return 0


def _declarations(plugin: Plugin) -> list[Component]:
    if plugin.namespace == "edgerazor" and not plugin.built_in:
        raise PluginError("the namespace 'edgerazor' is reserved")
    module_name, _, attribute = plugin.module.partition(":")
    module: Any = importlib.import_module(module_name)
    if attribute:
        module = getattr(module, attribute)
    manager = _register(module, plugin.namespace)
    components = []
    for hook, kind in _HOOKS.items():
        for implementation in getattr(manager.hook, hook).get_hookimpls():
            declared = implementation.function()
            if not isinstance(declared, Iterable):
                raise PluginError(f"{hook} returned {declared!r}; expected a list of parameter classes")
            for params in declared:
                components.append(_check_declaration(params, kind, plugin, hook))
    if not components and not plugin.built_in:
        raise PluginError(f"{plugin.module} declares nothing; mark its functions with @hookimpl")
    named = Counter((component.params.kind, component.name) for component in components)
    for (kind, name), count in named.items():
        if count > 1:
            raise PluginError(f"{plugin.module} declares {kind} '{name}' {count} times")
    return components


def _register(module: Any, namespace: str) -> pluggy.PluginManager:
    """A manager that knows this plugin alone, so that one that raises cannot end the call for others."""
    manager = pluggy.PluginManager(hookspecs.PROJECT)
    manager.add_hookspecs(hookspecs)
    manager.register(module, name=namespace)
    try:
        manager.check_pending()
    except pluggy.PluginValidationError as error:
        unknown = next(caller.name for caller in manager.get_hookcallers(module) or [] if caller.name not in _HOOKS)
        raise PluginError(f"edgerazor has no hook '{unknown}'{nearest(unknown, _HOOKS)}") from error
    return manager


def _check_declaration(params: Any, kind: Kind, plugin: Plugin, hook: str) -> Component:
    if not (isinstance(params, type) and issubclass(params, ComponentParams)):
        raise PluginError(f"{hook} returned {params!r}; expected parameter classes, subclasses of ComponentParams")
    if getattr(params, "kind", None) != kind:
        raise PluginError(f"{hook} returned {params.__name__}, which declares a {getattr(params, 'kind', 'nothing')}")
    if ":" not in getattr(params, "target", ""):
        raise PluginError(f"{params.__name__} has no target; expected 'package.module:Class'")
    name = params.model_fields["name"].default
    if not isinstance(name, str):
        raise PluginError(f"{params.__name__} has no name; expected: name: Literal['…'] = '…'")
    if kind == "adapter" and not getattr(params, "model_types", ()):
        raise PluginError(f"{params.__name__} has no model_types; expected those of config.json that it covers")
    if plugin.built_in == ("." in name) or (not plugin.built_in and not name.startswith(f"{plugin.namespace}.")):
        raise PluginError(f"{kind} '{name}' must be named '{plugin.namespace}.…': bare names belong to edgerazor")
    return Component(params, plugin.namespace, plugin.module)


def _check_model_types(components: dict[tuple[Kind, str], Component]) -> None:
    owners: dict[str, Component] = {}
    for (kind, _), component in components.items():
        if kind != "adapter":
            continue
        for model_type in component.params.model_types:  # type: ignore[attr-defined]
            if model_type in owners:
                raise PluginError(
                    f"model type '{model_type}' is claimed by two adapters: '{owners[model_type].name}' of "
                    f"{owners[model_type].module} and '{component.name}' of {component.module}"
                )
            owners[model_type] = component
