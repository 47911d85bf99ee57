"""The original's quantization functions in our words: 26 names, each written out, because a name is never parsed."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from edgerazor.convert.reading import Entry, Findings, as_number, checked
from edgerazor.core.registry import Registry
from edgerazor.schemas.messages import nearest

# What the original takes where a file gives no size and no share (METHOD 10, F10).
DEFAULT_BLOCK, DEFAULT_SHARE = 256, 0.01
EPSILON = 1e-5
Granularity = Literal["tensor", "row", "block"]


@dataclass(frozen=True)
class OldFunction:
    """A function of the original: our quantizer without its sizes (None: there is none), and what shares a scale."""

    quantizer: Mapping[str, Any] | None
    per: Granularity


_TERNARY = {"name": "ternary"}
_ABSMAX = {"name": "ternary", "scale": "absmax"}
_INT4 = {"name": "int", "bits": 4}
_UNSIGNED_SCALE = {"name": "int", "bits": 4, "symmetric": False}
_CLIP = "weight_quant_uniform_symmetric_clip_per_"
_WEIGHT = "weight_quant_uniform_symmetric_absmax_per_"
_ASYMMETRIC = "weight_quant_uniform_asymmetric_max_per_"
_MIXED = "weight_quant_uniform_symmetric_clip_per_block_mp_int1_58_int4_"
_STATE = "state_quant_uniform_symmetric_absmax_per_"
DEFAULT_WEIGHT = f"{_CLIP}block_int1_58"

WEIGHT_FUNCTIONS = {
    f"{_CLIP}tensor_int1_58": OldFunction(_TERNARY, "tensor"),
    f"{_CLIP}channel_int1_58": OldFunction(_TERNARY, "row"),
    f"{_CLIP}block_int1_58": OldFunction(_TERNARY, "block"),
    f"{_MIXED}dynamic": OldFunction({"name": "sqmp", "placement": "variance_groups"}, "block"),
    f"{_MIXED}static": OldFunction({"name": "sqmp", "placement": "first_groups"}, "block"),
    f"{_MIXED}static_column_wise": OldFunction({"name": "sqmp", "placement": "first_columns"}, "block"),
    f"{_MIXED}static_row_wise_sparse": OldFunction({"name": "sqmp"}, "block"),
    f"{_MIXED}static_sparse": OldFunction({"name": "sqmp", "placement": "strided_groups"}, "block"),
    f"{_WEIGHT}tensor_int1_58": OldFunction(_ABSMAX, "tensor"),
    f"{_WEIGHT}channel_int1_58": OldFunction(_ABSMAX, "row"),
    f"{_WEIGHT}block_int1_58": OldFunction(_ABSMAX, "block"),
    f"{_WEIGHT}tensor_int4": OldFunction(_INT4, "tensor"),
    f"{_WEIGHT}channel_int4": OldFunction(_INT4, "row"),
    f"{_WEIGHT}block_int4": OldFunction(_INT4, "block"),
    f"{_WEIGHT}block_int5": OldFunction({"name": "int", "bits": 5}, "block"),
    f"{_WEIGHT}block_int8": OldFunction({"name": "int", "bits": 8}, "block"),
    f"{_ASYMMETRIC}tensor_int4": OldFunction(_UNSIGNED_SCALE, "tensor"),
    f"{_ASYMMETRIC}channel_int4": OldFunction(_UNSIGNED_SCALE, "row"),
    f"{_ASYMMETRIC}block_int4": OldFunction(_UNSIGNED_SCALE, "block"),
}
STATE_FUNCTIONS = {
    f"{_STATE}token_int2": OldFunction({"name": "int", "bits": 2}, "row"),
    f"{_STATE}token_int4": OldFunction(_INT4, "row"),
    f"{_STATE}token_int8": OldFunction({"name": "int", "bits": 8}, "row"),
    f"{_STATE}block_int2": OldFunction({"name": "int", "bits": 2}, "block"),
    f"{_STATE}block_int4": OldFunction(_INT4, "block"),
    f"{_STATE}block_int8": OldFunction({"name": "int", "bits": 8}, "block"),
    f"{_STATE}block_mp_int4_int8_dynamic": OldFunction(None, "block"),
}


def weight_quantizer(settings: Mapping[str, Entry], registry: Registry, findings: Findings) -> dict[str, Any] | None:
    """Our quantizer of the weights that these settings of the original act on; None if there is none.

    Args:
        settings: `weight_function`, `w_block_size`, `w_scale_factor`, `w_mixed_precision_prop`, `is_w_quantized`.
    """
    if settings["is_w_quantized"].value not in (False, None):
        findings.problem(
            settings["is_w_quantized"].path,
            "weights that are quantized already would be quantized again; a recipe starts from a 16-bit model",
        )
    function = _function(settings["weight_function"], WEIGHT_FUNCTIONS, STATE_FUNCTIONS, "activations", findings)
    if function is None or function.quantizer is None:
        return None
    values = dict(function.quantizer)
    mixed, ternary = values["name"] == "sqmp", values["name"] != "int" and values.get("scale") != "absmax"
    if mixed:
        values["high_ratio"] = _share(settings["w_mixed_precision_prop"], findings)
    elif as_number(settings["w_mixed_precision_prop"], findings, -1.0) > 0:
        findings.problem(
            settings["w_mixed_precision_prop"].path,
            f"'{settings['weight_function'].value}' mixes no widths; write -1 here, or a function that does",
        )
    factor = as_number(settings["w_scale_factor"], findings, -1.0)
    if factor > 0 and not ternary:
        findings.note(settings["w_scale_factor"].path, "acts on the mean of a ternary group alone; left out")
    elif factor > 0 and factor != 2:
        values["scale_multiplier"] = factor
    values["group_size"] = _group_size(function, settings["weight_function"], settings["w_block_size"], findings)
    if values.get("symmetric") is False:
        findings.note(
            settings["weight_function"].path,
            "the original takes the scale from the largest positive weight and clips the others; here it covers both",
        )
    paths = {"group_size": "w_block_size", "scale_multiplier": "w_scale_factor", "high_ratio": "w_mixed_precision_prop"}
    where = {ours: settings[old].path for ours, old in paths.items()}
    if mixed:
        where[""] = settings["w_mixed_precision_prop"].path
    return checked(
        "quantizer", values, registry=registry, findings=findings, paths=where, path=settings["weight_function"].path
    )


def state_quantizer(
    settings: Mapping[str, Entry], slot: Literal["a", "kv"], registry: Registry, findings: Findings
) -> dict[str, Any] | None:
    """Our quantizer of activations (`a`) or of keys and values (`kv`); None where the original has none either."""
    written = settings["activation_function" if slot == "a" else "kv_cache_function"]
    if written.value in (None, ""):
        return None
    share = settings[f"{slot}_mixed_precision_prop"]
    if as_number(share, findings, -1.0) > 0:
        findings.problem(share.path, "mixed widths of activations, keys or values have no counterpart")
    function = _function(written, STATE_FUNCTIONS, WEIGHT_FUNCTIONS, "weights", findings)
    if function is None:
        return None
    if function.quantizer is None:
        findings.problem(
            written.path, f"'{written.value}' has no counterpart: which groups get 8 bits depends on other tokens"
        )
        return None
    size = settings[f"{slot}_block_size"]
    values = {**function.quantizer, "group_size": _group_size(function, written, size, findings)}
    return checked(
        "quantizer", values, registry=registry, findings=findings, paths={"group_size": size.path}, path=written.path
    )


def check_epsilon(written: Entry, findings: Findings) -> None:
    """The floor of a scale is a constant here (METHOD 1.2)."""
    value = as_number(written, findings, EPSILON)
    if value != EPSILON:
        findings.note(written.path, f"is {value:g}; the floor of a scale is {EPSILON:g} here, a constant")


def _function(
    written: Entry, known: Mapping[str, OldFunction], others: Mapping[str, OldFunction], what: str, findings: Findings
) -> OldFunction | None:
    name = str(written.value)
    if name in known:
        return known[name]
    if name in others:
        findings.problem(written.path, f"'{name}' quantizes {what}")
    else:
        findings.problem(written.path, f"no function of the original is named '{name}'{nearest(name, known)}")
    return None


def _group_size(function: OldFunction, named: Entry, written: Entry, findings: Findings) -> int | None:
    size = as_number(written, findings, -1.0)
    if function.per == "tensor":
        findings.problem(
            named.path,
            "one scale for a whole matrix has no counterpart; per_channel, which is group_size: null, is the nearest",
        )
        return None
    if function.per == "row":
        if size > 0:
            findings.problem(
                written.path, f"is {size:g}, but the function has one scale per row; write -1, or a per_block function"
            )
        return None
    if size <= 0:
        findings.note(written.path, f"is not given; {DEFAULT_BLOCK}, the original's default, is written")
        return DEFAULT_BLOCK
    if size != int(size):
        findings.problem(written.path, f"expected a whole number, got {size:g}")
    return int(size)


def _share(written: Entry, findings: Findings) -> float:
    share = as_number(written, findings, -1.0)
    if share < 0:
        findings.note(written.path, f"is not given; {DEFAULT_SHARE}, the original's default, is written")
        return DEFAULT_SHARE
    if share == 0:
        findings.note(written.path, f"0 is all ternary here; the original computes with {DEFAULT_SHARE}")
    return share
