"""Which group sizes fit a row, said the same way everywhere (METHOD 1.2, rule 6)."""

from edgerazor.errors import PlanError


def fitting_group_sizes(columns: int) -> list[int]:
    """Divisors that are multiples of 32, largest first; if there are none, the largest divisors up to 256."""
    divisors = [size for size in range(columns, 0, -1) if columns % size == 0]
    return [size for size in divisors if size % 32 == 0] or [size for size in divisors if size <= 256][:8]


def check_group_size(columns: int, group_size: int | None) -> None:
    """Raise PlanError if groups of `group_size` would cross the end of a row of `columns`."""
    if group_size is not None and columns % group_size != 0:
        fitting = ", ".join(str(size) for size in fitting_group_sizes(columns))
        raise PlanError(f"{columns} columns are not a multiple of group_size {group_size}; {fitting} would fit")
