"""How plans, plugins and figures look on a terminal."""

import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from edgerazor.core.names import group_name, layer_pattern
from edgerazor.core.registry import Plugin

if TYPE_CHECKING:
    from edgerazor.core.module_plan import ModulePlan
    from edgerazor.core.plan import Plan


def console() -> Console:
    """Standard output; wide when it is not a terminal, so that names in a file or a pipe are not broken."""
    return Console() if sys.stdout.isatty() else Console(width=200)


def plan_table(plan: "Plan", *, every: bool = False) -> Table:
    """Module, rule, quantizer, bits, bytes; equal layers share a row unless `every`."""
    table = Table("module", "rule", "quantizer", box=None, pad_edge=False)
    table.add_column("bits", justify="right")
    table.add_column("bytes", justify="right")
    groups = [[module] for module in plan.modules] if every else group_layers(plan.modules)
    for group in groups:
        first = group[0]
        size = "tied" if first.tied_to else f"{sum(module.bytes for module in group):,}"
        table.add_row(
            group_name([module.name for module in group]),
            f"weights[{first.rule}]",
            escape(first.params.summary()) if first.params else "- (16 bit)",
            f"{first.nominal_bits:.2f}",
            size,
        )
    return table


def group_layers(modules: Iterable["ModulePlan"]) -> list[list["ModulePlan"]]:
    """Modules that differ in nothing but the index of their layer, in the order of their first member."""
    groups: dict[Any, list[ModulePlan]] = {}
    for module in modules:
        key = (layer_pattern(module.name), module.shape, module.rule, module.nominal_bits, module.tied_to)
        groups.setdefault(key, []).append(module)
    return list(groups.values())


def summary(plan: "Plan") -> list[str]:
    """The totals of a plan, one line each."""
    return [
        f"parameters: {plan.parameters:,}, {plan.coverage:.2%} of them quantized",
        f"bits per quantized weight: {plan.nominal_bits:.3f}, with scales {plan.effective_bits:.3f}",
        f"size on disk: {human_bytes(plan.bytes)}, {2 * plan.parameters / plan.bytes:.2f} times smaller than 16 bit",
        f"compression by effective bits: {plan.compression:.2f}",
        "; ".join(
            f"{what}: {params.summary() if params else '16 bit'}"
            for what, params in (("activations", plan.activations), ("keys and values", plan.kv_cache))
        ),
    ]


def plan_as_dict(plan: "Plan") -> dict[str, Any]:
    """Every module, the numbers of weights in matrices that are in none of them, and the totals, as plain data."""
    return {
        "modules": [
            {
                "name": module.name,
                "kind": module.kind,
                "shape": list(module.shape),
                "rule": module.rule,
                "quantizer": module.params.model_dump(mode="json") if module.params else None,
                "nominal_bits": module.nominal_bits,
                "effective_bits": module.effective_bits,
                "bytes": module.bytes,
                "tied_to": module.tied_to,
            }
            for module in plan.modules
        ],
        "matrices_left_out": {name: plan.rest[name] for name in plan.matrices_left_out},
        "activations": plan.activations.model_dump(mode="json") if plan.activations else None,
        "kv_cache": plan.kv_cache.model_dump(mode="json") if plan.kv_cache else None,
        "parameters": plan.parameters,
        "coverage": plan.coverage,
        "nominal_bits": plan.nominal_bits,
        "effective_bits": plan.effective_bits,
        "bytes": plan.bytes,
        "compression": plan.compression,
        "notes": list(plan.notes),
    }


def plugin_table(plugins: Sequence[Plugin]) -> Table:
    """Name, version, components and status of each plugin."""
    table = Table("plugin", "version", "components", "status", box=None, pad_edge=False)
    for plugin in plugins:
        kinds: dict[str, list[str]] = {}
        for kind, name in plugin.components:
            kinds.setdefault(kind, []).append(name)
        offered = "; ".join(f"{kind}: {', '.join(names)}" for kind, names in kinds.items())
        status = escape(f"broken: {plugin.error}") if plugin.error else "ok"
        table.add_row(f"{plugin.namespace} ({plugin.module})", plugin.version, offered or "-", status)
    return table


def human_bytes(count: int) -> str:
    """`301.2 MB`, in powers of ten."""
    size, units = float(count), ["bytes", "kB", "MB", "GB", "TB"]
    while size >= 1000 and len(units) > 1:
        size, units = size / 1000, units[1:]
    return f"{count} bytes" if units[0] == "bytes" else f"{size:.1f} {units[0]}"


def print_figures(figures: Any) -> None:
    """Figures of held-out data, a line each."""
    for name, value in figures.items():
        shown = "-" if value is None else f"{value:,}" if isinstance(value, int) else f"{value:.4f}"
        typer.echo(f"  {name}: {shown}")
