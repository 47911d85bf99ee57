"""Names of modules that differ only in the index of their layer, said in one; without torch, for the command line."""

import re
from collections.abc import Sequence

_INDEX = re.compile(r"(?<=\.)\d+(?=\.)")


def layer_pattern(name: str) -> str:
    """`model.layers.3.mlp.up_proj` as `model.layers.*.mlp.up_proj`; only the first index is replaced."""
    return _INDEX.sub("*", name, count=1)


def group_name(names: Sequence[str]) -> str:
    """`model.layers.{0-27}.mlp.up_proj ×28` for names that share a `layer_pattern`."""
    if len(names) == 1:
        return names[0]
    indices = sorted(int(match[0]) for name in names if (match := _INDEX.search(name)))
    return f"{_INDEX.sub('{' + _ranges(indices) + '}', names[0], count=1)} ×{len(names)}"


def _ranges(indices: Sequence[int]) -> str:
    runs: list[list[int]] = []
    for index in indices:
        if runs and index == runs[-1][-1] + 1:
            runs[-1].append(index)
        else:
            runs.append([index])
    return ",".join(f"{run[0]}-{run[-1]}" if len(run) > 1 else str(run[0]) for run in runs)
