"""`sqmp`: integer and ternary parts mixed inside one matrix (METHOD 2)."""

from collections.abc import Mapping
from math import prod

import torch
from torch import Tensor

from edgerazor.errors import PlanError
from edgerazor.kernels.reference import GroupRule
from edgerazor.plugins.quantizers.grouped import GroupedQuantizer
from edgerazor.plugins.quantizers.params import SQMPParams, exact_ratio
from edgerazor.schemas.row_ranges import parse_rows


class SQMPQuantizer(GroupedQuantizer):
    """High parts are `int` with `high_bits`, the others ternary absmean; both share one group size.

    The published rule (`every_nth_row`) goes by position alone: row r is high when r mod (1 / high_ratio) = 0.
    """

    params: SQMPParams
    rows_independent = False

    def __init__(self, params: SQMPParams):
        super().__init__(params)
        self.ratio = exact_ratio(params.high_ratio or 0)
        self.rows = parse_rows(params.high_rows) if params.high_rows is not None else ()
        self.qmax = 2 ** (params.high_bits - 1) - 1

    def check_shape(self, shape: tuple[int, ...]) -> None:
        super().check_shape(shape)
        if self.rows and self.rows[-1] >= prod(shape[:-1]):
            raise PlanError(
                f"sqmp: high_rows lists row {self.rows[-1]} of a matrix of {prod(shape[:-1])} rows, counted from 0"
            )
        if self.ratio and not self._high_count(shape):
            raise PlanError(
                f"sqmp with placement {self.params.placement} and high_ratio {self.params.high_ratio} gives no high "
                f"part to a matrix of {prod(shape[:-1])} rows and {self._groups(shape)} groups a row; "
                "raise high_ratio, take a smaller group_size, or use ternary"
            )

    def widths(self, shape: tuple[int, ...]) -> Mapping[int, int]:
        high = self._high_count(shape) * (shape[-1] if self._by_row else shape[-1] // self._groups(shape))
        return {qmax: count for qmax, count in ((1, prod(shape) - high), (self.qmax, high)) if count}

    def stored_widths(self, shape: tuple[int, ...]) -> Mapping[int, int]:
        """`widths` where a row is held at its widest group; the most it can be for `variance_groups`."""
        rows, groups, high = prod(shape[:-1]), self._groups(shape), self._high_count(shape)
        match self.params.placement:
            case "first_groups":
                wide = -(-high // groups)
            case "first_columns":
                wide = rows if high else 0
            case "strided_groups":
                first, share = [row * groups % 100 for row in range(rows)], int(100 * self.ratio)
                wide = sum(bool(share) and (start < share or start + groups > 100) for start in first)
            case _:
                wide = min(high, rows)
        counts = ((1, (rows - wide) * shape[-1]), (self.qmax, wide * shape[-1]))
        return {qmax: count for qmax, count in counts if count}

    def splits_at(self, rows: int) -> bool:
        """Whether blocks of that many rows, quantized one by one, give what the whole gives."""
        if self.rows:
            return False
        return not self.ratio or (self.params.placement == "every_nth_row" and rows % self.ratio.denominator == 0)

    @property
    def _by_row(self) -> bool:
        return self.params.placement in ("every_nth_row", "variance_rows", "rows")

    def _groups(self, shape: tuple[int, ...]) -> int:
        return shape[-1] // (self.params.group_size or shape[-1])

    def _high_count(self, shape: tuple[int, ...]) -> int:
        """High rows, or high groups for the placements that mix inside a row."""
        rows, groups = prod(shape[:-1]), self._groups(shape)
        match self.params.placement:
            case "every_nth_row":
                return -(-rows * self.ratio.numerator // self.ratio.denominator) if self.ratio else 0
            case "variance_rows":
                return int(rows * self.ratio)
            case "rows":
                return len(self.rows)
            case "first_columns":
                return rows * int(groups * self.ratio)
            case "strided_groups":
                full, rest = divmod(rows * groups, 100)
                return full * int(100 * self.ratio) + min(rest, int(100 * self.ratio))
            case _:
                return int(rows * groups * self.ratio)

    def _high(self, groups: Tensor) -> Tensor:
        """bool `[R, 1]` or `[R, G]`: what is high among groups `[..., G, g]`."""
        rows, per_row = groups.shape[:-2].numel(), groups.shape[-2]
        count = self._high_count((rows, per_row * groups.shape[-1]))
        device, flat = groups.device, groups.reshape(rows, -1)
        match self.params.placement:
            case "every_nth_row" | "rows":
                return self._high_rows(rows, device)
            case "variance_rows":
                return _largest(flat.float().var(dim=-1), count).reshape(rows, 1)
            case "variance_groups":
                return _largest(groups.float().var(dim=-1).flatten(), count).reshape(rows, per_row)
            case "first_columns":
                return (torch.arange(per_row, device=device) < count // rows).expand(rows, per_row)
            case "strided_groups":
                index = torch.arange(rows * per_row, device=device)
                return (index % 100 < int(100 * self.ratio)).reshape(rows, per_row)
            case _:
                return (torch.arange(rows * per_row, device=device) < count).reshape(rows, per_row)

    def _high_rows(self, rows: int, device: torch.device) -> Tensor:
        """bool `[R, 1]`: every n-th row, or those that are listed."""
        high = torch.zeros(rows, 1, dtype=torch.bool, device=device)
        if self.rows:
            high[torch.tensor(self.rows, device=device)] = True
        elif self.ratio:
            high[:: self.ratio.denominator] = True
        return high

    def _rule(self, x: Tensor) -> GroupRule:
        high = self._high(x.unflatten(-1, (-1, self.params.group_size or x.shape[-1])))
        qmax = torch.where(high, self.qmax, 1).to(torch.int8)
        qmax = qmax.squeeze(-1) if self._by_row else qmax
        return GroupRule("mixed", qmax, self.params.scale_multiplier, self.params.scale_dtype)


def _largest(values: Tensor, count: int) -> Tensor:
    """bool mask of the `count` largest entries of a vector; ties keep the lower index."""
    order = torch.sort(values, descending=True, stable=True).indices
    return torch.zeros_like(values, dtype=torch.bool).index_fill_(0, order[:count], True)
