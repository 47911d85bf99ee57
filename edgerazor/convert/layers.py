"""The original's `layer_index` as one of our layer selectors."""

from typing import Any

from edgerazor.convert.reading import Entry, Findings, OldSection
from edgerazor.schemas.messages import describe

_METRICS = {"cosine_similarity": "cosine", "l2": "norm", "variance": "variance"}
_NAMES = ("low", "mid", "high")


def selector_of(
    section: OldSection, findings: Findings, paths: dict[str, str], *, numbered_from: int
) -> dict[str, Any] | None:
    """The selector, or None after a problem was reported.

    Args:
        paths: gets the path of each of the selector's parameters.
        numbered_from: 0 where the original counts the embedding as layer 0, as we do; 1 where its 0 is our layer 1.
    """
    written = section.get("layer_index")
    metric = section.get("layer_index_adaptive_metric", "cosine_similarity")
    top_k = section.number("layer_index_adaptive_topk", 3)
    paths |= {"layers": written.path, "metric": metric.path, "top_k": section.where("layer_index_adaptive_topk")}
    items = written.value if isinstance(written.value, list) else [written.value]
    if items == [None] or not items:
        findings.problem(written.path, "names no layer, on which the original fails; {name: all} compares every layer")
        return None
    if "adaptive" not in items:
        return _fixed(items, written, findings, numbered_from)
    if len(items) > 1:
        findings.problem(written.path, "'adaptive' beside other layers, which the original discards; write only one")
        return None
    if numbered_from:
        findings.problem(written.path, "'adaptive' has no counterpart here: layers are chosen by hidden states alone")
        return None
    if str(metric.value) not in _METRICS:
        findings.problem(metric.path, f"expected {', '.join(_METRICS)}, got {describe(metric.value)}")
        return None
    chosen = {"name": "lafd", "top_k": int(top_k)}
    return chosen if metric.value == "cosine_similarity" else {**chosen, "metric": _METRICS[metric.value]}


def _fixed(items: list[Any], written: Entry, findings: Findings, numbered_from: int) -> dict[str, Any] | None:
    layers: list[Any] = []
    for item in items:
        if item in _NAMES:
            layers.append(item)
        elif isinstance(item, int) and not isinstance(item, bool):
            layers.append(item + numbered_from if item >= 0 else item)
        else:
            findings.problem(written.path, f"expected layer numbers, low, mid, high or adaptive, got {describe(item)}")
            return None
    if numbered_from and "mid" in layers:
        findings.problem(
            written.path, "'mid' is another layer there, number (layers // 2) + 1 as we count; write the number"
        )
        return None
    if numbered_from:
        layers = [1 + numbered_from if layer == "low" else layer for layer in layers]
        if layers != items:
            findings.note(written.path, "counts decoder layers from 0; layers of a recipe start at 1")
    if len(set(layers)) < len(layers):
        findings.note(written.path, "a layer that is named twice counts once here")
    return {"name": "fixed", "layers": layers}
