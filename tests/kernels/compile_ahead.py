"""Compiles every Triton kernel for compute capability 9.0 without a device.

`python -m tests.kernels.compile_ahead DIR`: a process of its own, because triton chooses between its compiler and its
interpreter when it is imported.
"""

import importlib
import itertools
import sys
from pathlib import Path
from typing import Any, NamedTuple

STORED = {"labels_pointer": "*i64", "qmax_pointer": "*i8", "codes_pointer": "*i8"}
STORED |= {"scale_pointer": "*fp16", "given_pointer": "*fp16"}
FLOATS = {
    "columns_pointer": "*fp32",
    "cosine_pointer": "*fp32",
    "forward_pointer": "*fp32",
    "reverse_pointer": "*fp32",
    "task_pointer": "*fp32",
}
SCALARS = {"temperature": "fp32", "inverse": "fp32", "multiplier": "fp32"}
DIVISIBLE = ("pointer", "stride", "stride_0", "stride_1", "stride_2", "vocabulary", "width")


class Variant(NamedTuple):
    """A kernel as it is launched: dtype of its tensors, values of its constants, pointers that are None."""

    kernel: str
    dtype: str
    constants: dict[str, Any]
    absent: tuple[str, ...] = ()


def variants() -> dict[str, Variant]:
    """By name, which starts with the name of the module."""
    found = {}
    tile = {"tile_groups": 16, "tile_columns": 256, "scale_dtype": "float16"}
    for kind, dtype in itertools.product(
        ("absmean", "absmax", "asymmetric", "signed_asymmetric", "mixed"), ("fp32", "bf16")
    ):
        constants = {"kind": kind, "qmax": 7, "group_size": 256 if dtype == "fp32" else 160, **tile}
        absent = ("given_pointer",) if kind == "mixed" else ("qmax_pointer", "given_pointer")
        found[f"quantize-{kind}-{dtype}"] = Variant("quantize", dtype, constants, absent)
    both = {"kind": "absmax", "qmax": 7, "group_size": 256, **tile, "scale_dtype": "float16_bfloat16"}
    found["quantize-scales-of-bfloat16"] = Variant("quantize", "fp32", both, ("qmax_pointer", "given_pointer"))
    for kind, absent in (("given", ()), ("given_asymmetric", ("qmax_pointer",))):
        given = {"qmax": 7, "group_size": 256, **tile, "kind": kind}
        found[f"quantize-{kind}"] = Variant("quantize", "fp32", given, absent)
        found[f"scale_gradient-{kind}"] = Variant("scale_gradient", "fp32", given, absent)
    for dtype in ("fp32", "bf16"):
        found[f"similarity-{dtype}"] = Variant("similarity", dtype, {"tile": 1024})
        found[f"dequantize-{dtype}"] = Variant("dequantize", dtype, {"group_size": 256, **tile})
        found[f"teacher_statistics-{dtype}"] = Variant("teacher_statistics", dtype, {"tile": 4096})
    for name in ("row_statistics", "row_gradient"):
        found[f"{name}-bf16"] = Variant(name, "bf16", {"tile": 4096, "tempered": False})
        for absent, tempered in itertools.product(((), ("u_pointer",)), (True, False)):
            label = f"{name}-fp32{'-task' if absent else ''}{'-tempered' if tempered else ''}"
            found[label] = Variant(name, "fp32", {"tile": 4096, "tempered": tempered}, absent)
    return found | smallest()


def smallest() -> dict[str, Variant]:
    """Tensors of one element: triton makes a constant of every whole number that is 1."""
    row = {"rows": 1, "vocabulary": 1, "z_stride": 1, "u_stride": 1, "gradient_stride": 1, "row_stride": 1}
    group = dict.fromkeys(["groups", "groups_per_row", "size_1", "size_2", "stride_2", "qmax_row_stride"], 1)
    kind = {"kind": "mixed", "qmax": 1, "scale_dtype": "float16"}
    size = {"group_size": 1, "tile_groups": 128, "tile_columns": 1}
    return {
        "quantize-mixed-smallest": Variant("quantize", "fp32", {**group, **kind, **size}, ("given_pointer",)),
        "teacher_statistics-smallest": Variant("teacher_statistics", "fp32", {**row, "tile": 4096}),
        "row_statistics-smallest": Variant("row_statistics", "fp32", {**row, "tile": 4096, "tempered": True}),
        "row_gradient-smallest": Variant("row_gradient", "fp32", {**row, "tile": 4096, "tempered": True}),
    }


def compiled(variant: Variant) -> Any:
    """What triton makes of it: `.asm["ptx"]` and `.asm["cubin"]`."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    module = importlib.import_module(f"edgerazor.kernels.triton.{variant.kernel}")
    kernel = getattr(module, f"{variant.kernel}_kernel")
    constants = {name: value for name, value in variant.constants.items() if name in kernel.arg_names}
    constants |= dict.fromkeys(variant.absent)
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
