"""Compiles every Triton kernel for compute capability 9.0 without a device: `python -m tests.kernels.compile_ahead DIR`.

Run in a process of its own, because triton chooses between compiler and interpreter when it is imported.
"""

import importlib
import itertools
import sys
from pathlib import Path
from typing import Any, NamedTuple

STORED = {"labels_pointer": "*i64", "qmax_pointer": "*i8", "codes_pointer": "*i8", "scale_pointer": "*fp16"}
FLOATS = {"columns_pointer": "*fp32", "forward_pointer": "*fp32", "reverse_pointer": "*fp32", "task_pointer": "*fp32"}
SCALARS = {"temperature": "fp32", "inverse": "fp32", "multiplier": "fp32"}
DIVISIBLE = ("pointer", "stride", "stride_0", "stride_1", "stride_2", "vocabulary")


class Variant(NamedTuple):
    """A kernel as it is launched: dtype of its tensors, values of its constants, pointers that are None."""

    kernel: str
    dtype: str
    constants: dict[str, Any]
    absent: tuple[str, ...] = ()


def variants() -> dict[str, Variant]:
    """By name, which starts with the name of the module."""
    found = {}
    tile = {"tile_groups": 16, "tile_columns": 256, "float16_scale": True}
    for kind, dtype in itertools.product(("absmean", "absmax", "asymmetric", "mixed"), ("fp32", "bf16", "fp16")):
        group = {"fp32": 256, "bf16": 128, "fp16": 160}[dtype]
        constants = {"kind": kind, "qmax": 1 if kind == "mixed" else 7, "group_size": group, **tile}
        absent = () if kind == "mixed" else ("qmax_pointer",)
        found[f"quantize-{kind}-{dtype}"] = Variant("quantize", dtype, constants, absent)
    for dtype in ("fp32", "bf16"):
        found[f"teacher_statistics-{dtype}"] = Variant("teacher_statistics", dtype, {"tile": 4096})
        for name, teacher, tempered in itertools.product(
            ("row_statistics", "row_gradient"), (True, False), (True, False)
        ):
            constants = {"tile": 4096, "tempered": tempered}
            label = f"{name}-{dtype}-{'teacher' if teacher else 'task'}-{'tempered' if tempered else 'plain'}"
            found[label] = Variant(name, dtype, constants, () if teacher else ("u_pointer",))
    return found


def compiled(variant: Variant) -> Any:
    """What triton makes of it: `.asm["ptx"]` and `.asm["cubin"]`."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    module = importlib.import_module(f"edgerazor.kernels.triton.{variant.kernel}")
    kernel = getattr(module, f"{variant.kernel}_kernel")
    constants = {**variant.constants, **dict.fromkeys(variant.absent)}
    signature = {}
    for name in kernel.arg_names:
        default = f"*{variant.dtype}" if name.endswith("_pointer") else "i32"
        known = {**STORED, **FLOATS, **SCALARS}.get(name, default)
        signature[name] = "constexpr" if name in constants else known
    attributes = {
        (index,): [["tt.divisibility", 16]]
        for index, (name, kind) in enumerate(signature.items())
        if kind != "constexpr" and name.endswith(DIVISIBLE) and not name.startswith("qmax")
    }
    source = ASTSource(kernel, signature, constexprs=constants, attrs=attributes)
    return triton.compile(source, target=GPUTarget("cuda", 90, 32), options={"num_warps": 4})


if __name__ == "__main__":
    for name, variant in variants().items():
        made = compiled(variant)
        (Path(sys.argv[1]) / f"{name}.ptx").write_text(made.asm["ptx"], encoding="utf-8")
        (Path(sys.argv[1]) / f"{name}.cubin").write_bytes(made.asm["cubin"])
