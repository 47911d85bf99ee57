"""Size and predicted loss of every candidate of every unit: what the knapsack chooses from."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from edgerazor.allocate.candidates import Unit, candidate_quantizer, check_fits
from edgerazor.core.contracts import Quantizer
from edgerazor.core.module_plan import ModulePlan
from edgerazor.core.registry import Registry
from edgerazor.core.tensor import nominal_bits
from edgerazor.errors import PlanError
from edgerazor.schemas.components import QuantizerParams
from edgerazor.schemas.row_ranges import format_rows

# Sizes are counted in hundredths of a bit, in which 1.58 is a whole number.
HUNDREDTHS = 100
ROW_STEPS = 32
RowLosses = Callable[[ModulePlan, Quantizer], Tensor]


@dataclass(frozen=True)
class Option:
    """One way to quantize a unit.

    Attributes:
        label: as the candidate was named.
        quantizers: of each module of the unit.
        cost: nominal size of its codes, in hundredths of a bit.
        loss: predicted KL, nats per token.
    """

    label: str
    quantizers: tuple[QuantizerParams, ...]
    cost: int
    loss: float


class Options:
    """Builds options; `row_losses` gives what rounding the rows of a module costs."""

    def __init__(self, body: Mapping[int, QuantizerParams], row_losses: RowLosses, registry: Registry):
        self.body, self.row_losses, self.registry = body, row_losses, registry
        self.notes: list[str] = []

    def of_unit(self, unit: Unit, candidates: Sequence[str]) -> list[Option]:
        """One option per candidate that fits all modules; the others are noted.

        Raises:
            PlanError: none fits.
        """
        found, reasons = [], []
        for text in candidates:
            bodies = [self.body[module.rule] for module in unit.modules]
            params = [candidate_quantizer(text, body, registry=self.registry) for body in bodies]
            reason = self._why_not(unit, params)
            if reason:
                reasons.append(f"{unit.name}: {text} is no candidate: {reason}")
                continue
            found.append(self.option(text, unit, params))
        if not found:
            raise PlanError("\n".join(reasons))
        self.notes += reasons
        return found

    def option(self, label: str, unit: Unit, params: Sequence[QuantizerParams]) -> Option:
        """Cost and loss of one quantizer per module; a module whose weight is another's counts nothing."""
        cost, loss = 0, 0.0
        for module, chosen in zip(unit.modules, params, strict=True):
            if not module.tied_to:
                quantizer = self.registry.build(chosen)
                cost += self._cost(module, quantizer)
                loss += float(self.row_losses(module, quantizer).sum())
        return Option(label, tuple(params), cost, loss)

    def by_rows(self, unit: Unit) -> list[Option]:
        """Ternary, and int in the rows where it helps most, in steps of a `ROW_STEPS`-th of the rows.

        Only for units of one module that is a matrix of its own; `high_bits` is the body's, or 4.
        """
        (module,) = unit.modules
        body, rows = self.body[module.rule], module.matrices.rows
        bits = int(getattr(body, "high_bits", 4))
        low, high = (candidate_quantizer(text, body, registry=self.registry) for text in ("ternary", f"int{bits}"))
        quantizers = [self.registry.build(quantizer) for quantizer in (low, high)]
        losses = [self.row_losses(module, quantizer) for quantizer in quantizers]
        costs = [self._cost(module, quantizer) for quantizer in quantizers]
        order = torch.sort(losses[0] - losses[1], descending=True, stable=True).indices
        options = [Option("ternary", (low,), costs[0], float(losses[0].sum()))]
        for count in sorted({rows * step // ROW_STEPS for step in range(1, ROW_STEPS)} - {0}):
            chosen = order[:count].sort().values
            written = f"{{name: sqmp, placement: rows, high_bits: {bits}, high_rows: '{format_rows(chosen.tolist())}'}}"
            params = candidate_quantizer(written, body, registry=self.registry)
            gain = float((losses[0] - losses[1])[chosen].sum())
            cost = costs[0] + (costs[1] - costs[0]) // rows * count
            options.append(Option(f"{count} of {rows} rows", (params,), cost, options[0].loss - gain))
        return [*options, Option(f"int{bits}", (high,), costs[1], float(losses[1].sum()))]

    def can_list_rows(self, unit: Unit) -> bool:
        """Whether rows can be listed: not for several matrices in one tensor, which share one list."""
        return len(unit.modules) == 1 and unit.modules[0].matrices.count == 1

    def _cost(self, module: ModulePlan, quantizer: Quantizer) -> int:
        widths = module.matrices.widths_of_all(quantizer.widths)
        symmetric = quantizer.symmetric
        return sum(count * round(HUNDREDTHS * nominal_bits(qmax, symmetric)) for qmax, count in widths.items())

    def _why_not(self, unit: Unit, params: Sequence[QuantizerParams]) -> str | None:
        for module, chosen in zip(unit.modules, params, strict=True):
            quantizer = self.registry.build(chosen)
            for shape in module.matrices.shapes:
                if reason := check_fits(quantizer, shape):
                    return f"{module.name}: {reason}"
        return None
