"""The original's `kd_configuration` as our `distillation` section."""

from collections.abc import Mapping
from typing import Any

from edgerazor.convert.layers import selector_of
from edgerazor.convert.reading import Entry, Findings, OldSection, as_number, checked
from edgerazor.core.registry import Registry
from edgerazor.schemas.messages import describe, nearest

# Every name that the original accepts for a function, and what it computes.
_FUNCTIONS = {
    **dict.fromkeys(("compute_kld_forward", "kld_forward", "kldf"), "forward_kl"),
    **dict.fromkeys(("compute_kld_reverse", "kld_reverse", "kldr"), "reverse_kl"),
    **dict.fromkeys(("compute_kld_confidence", "kld_confidence", "kldc"), "confidence"),
    **dict.fromkeys(("compute_mse", "mse", "compute_fd", "fd"), "mse"),
}
_TYPES = ("logits", "hidden_states", "attentions", "past_key_values")
_REDUCTIONS = {"batch_mean": "sequence_mean", "mean": "token_mean", "sum": "sum"}
_LOWEST_TEMPERATURE = 0.1
# Release 1.3.5 writes the first; earlier ones misspell it.
_COMPONENT = ("self_relation_distill_component", "self_relation_dsitill_component")


def distillation_of(section: OldSection, registry: Registry, findings: Findings) -> dict[str, Any]:
    """`task_weight` and `losses`, in the order of the file; keys that mean nothing here become notes or problems."""
    content: dict[str, Any] = {"task_weight": section.number("loss_task_alpha", 1.0), "losses": []}
    if content["task_weight"] < 0:
        findings.problem(section.where("loss_task_alpha"), f"expected 0 or more, got {content['task_weight']:g}")
    keys = [key for key in section.keys() if str(key).startswith("loss_") and key != "loss_task_alpha"]  # noqa: SIM118
    for key in keys:
        written = section.get(key)
        loss = _loss(OldSection(written.value, written.path, findings), registry, findings)
        content["losses"] += [loss] if loss else []
    if not keys:
        findings.problem(section.path, "no loss is given; the original asks for loss_1 at least")
    return content


def _loss(section: OldSection, registry: Registry, findings: Findings) -> dict[str, Any] | None:
    kind, function = section.get("loss_type", "logits"), section.get("loss_function", "compute_kld_reverse")
    values: dict[str, Any] = {"name": None, "weight": section.number("alpha", 0.5)}
    paths = {"weight": section.where("alpha")}
    _check_what_is_fixed(section, findings)
    reduction = _reduction(section.get("reduction", "batch_mean"), findings)
    named = _named(kind, function, findings)
    details = {
        "logits": _logits,
        "hidden_states": _hidden_states,
        "attentions": _attentions,
        "past_key_values": _past_key_values,
    }
    parts = details[kind.value](section, named, findings, paths) if named else None
    _ask_for_the_rest(section)
    section.refuse_the_rest()
    if parts is None or reduction is None:
        return None
    values |= parts
    values |= {"reduction": reduction} if reduction != "sequence_mean" else {}
    path = section.where("loss_function")
    return checked("loss", values, registry=registry, findings=findings, paths=paths, path=path)


def _named(kind: Entry, function: Entry, findings: Findings) -> str | None:
    if kind.value not in _TYPES:
        said = f"no output of a model is named {describe(kind.value)}{nearest(str(kind.value), _TYPES)}"
        findings.problem(kind.path, said)
        return None
    named = _FUNCTIONS.get(str(function.value))
    if named is None:
        said = f"no loss function is named {describe(function.value)}{nearest(str(function.value), _FUNCTIONS)}"
        findings.problem(function.path, said)
    elif (named == "mse") != (kind.value == "hidden_states"):
        findings.problem(function.path, f"'{function.value}' of {kind.value} has no counterpart")
        return None
    return named


def _logits(section: OldSection, named: str, findings: Findings, paths: dict[str, str]) -> dict[str, Any]:
    temperature = section.number("temperature", 2.0)
    paths["temperature"] = section.where("temperature")
    if temperature < _LOWEST_TEMPERATURE:
        findings.note(paths["temperature"], f"the original computes with {_LOWEST_TEMPERATURE} at least; so is written")
        temperature = _LOWEST_TEMPERATURE
    if named != "confidence":
        return {"name": named, "temperature": temperature}
    if not section.get("use_entropy", True).value:
        return {"name": "cakld", "temperature": temperature}
    return {"name": "eakld", "temperature": temperature, **_support(section, paths)}


def _hidden_states(section: OldSection, named: str, findings: Findings, paths: dict[str, str]) -> dict[str, Any] | None:
    layers = selector_of(section, findings, paths, numbered_from=0)
    return {"name": "feature_mse", "layers": layers} if layers else None


def _attentions(section: OldSection, named: str, findings: Findings, paths: dict[str, str]) -> dict[str, Any] | None:
    return _relation("attention_relation", section, named, findings, paths)


def _past_key_values(
    section: OldSection, named: str, findings: Findings, paths: dict[str, str]
) -> dict[str, Any] | None:
    values = _relation("key_value_relation", section, named, findings, paths)
    key = next((key for key in _COMPONENT if key in section), _COMPONENT[0])
    component = section.get(key, "value")
    paths["component"] = component.path
    if values and component.value != "value":
        values["component"] = component.value
    return values


def _relation(
    name: str, section: OldSection, named: str, findings: Findings, paths: dict[str, str]
) -> dict[str, Any] | None:
    layers = selector_of(section, findings, paths, numbered_from=1)
    values: dict[str, Any] = {"name": name, "divergence": "eakld" if named == "confidence" else named}
    if named == "confidence":
        entropy = section.get("use_entropy", True)
        if not entropy.value:
            findings.problem(entropy.path, "a label's probability says nothing about attention; write true")
        values |= _support(section, paths)
    return {**values, "layers": layers} if layers else None


def _support(section: OldSection, paths: dict[str, str]) -> dict[str, float]:
    paths["uniform_support"] = section.where("confidence_k")
    value = section.number("confidence_k", 5)
    return {"uniform_support": int(value) if value == int(value) else value}


def _reduction(written: Entry, findings: Findings) -> str | None:
    if written.value == "none":
        findings.problem(written.path, "'none' gives a value per token, which is no loss; the original fails on it")
    elif str(written.value) not in _REDUCTIONS:
        known = nearest(str(written.value), [*_REDUCTIONS, "none"])
        findings.problem(written.path, f"no reduction is named {describe(written.value)}{known}")
    return _REDUCTIONS.get(str(written.value))


def _check_what_is_fixed(section: OldSection, findings: Findings) -> None:
    padding = section.get("padding_id", -100)
    if as_number(padding, findings, -100) != -100:
        findings.problem(padding.path, f"is {padding.value}; labels that are not learned are -100 here")
    for key, why in (
        ("is_router_logits", "no loss here compares routers with a teacher's"),
        ("normalize", "features are compared as they are; the nearest loss is 'feature_cosine'"),
    ):
        written = section.get(key, False)
        if written.value:
            findings.problem(written.path, f"has no counterpart: {why}")


def _ask_for_the_rest(section: OldSection) -> None:
    """Keys that belong to other losses: the original takes them everywhere, and so they are no mistake."""
    for key in (
        *("temperature", "use_entropy", "confidence_k", "layer_index"),
        *("layer_index_adaptive_metric", "layer_index_adaptive_topk", *_COMPONENT),
    ):
        section.get(key)


def router_notes(section: OldSection, findings: Findings) -> None:
    """The two weights that act on mixtures of experts alone."""
    notes: Mapping[str, str] = {
        "router_z_loss_coef": "acts on a mixture of experts alone; for one, add {{name: router_z, weight: {:g}}}",
        "router_aux_loss_coef": "is {:g}; a mixture of experts balances itself, once, as its config.json says",
    }
    for key, said in notes.items():
        value = section.number(key, 0.0)
        if value:
            findings.note(section.where(key), said.format(value))
