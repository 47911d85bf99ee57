"""The laws of architecture adapters, held to a tiny random model of the family."""

import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from edgerazor.checkpoint import load_model, verify_checkpoint
from edgerazor.core.contracts import ModelFacts, Signal, TensorRole
from edgerazor.core.discovery import load_plugins
from edgerazor.core.layers.table import find_layer, is_plain, kind_of
from edgerazor.core.outputs import Head
from edgerazor.core.registry import Registry
from edgerazor.schemas.components import AdapterParams
from edgerazor.testing.adapter_case import AdapterCase, Batch
from edgerazor.testing.laws import expect, expect_equal, holding, law_name

_NO_MATRIX_PART = ("other", "router")


def check_adapter(
    params: AdapterParams, config: Any, *, batch: Batch | None = None, registry: Registry | None = None
) -> None:
    """Hold an adapter to the laws of its contract, on a random model that is planned, trained one step and packed.

    Args:
        params: its parameters.
        config: transformers configuration of a small model: two layers, a width of 32 or 64.
        batch: what the model's forward takes, with inputs for everything that can be quantized; None is two rows of
            text, or two images where the adapter's facts say that the model is given such.
        registry: builds it; None loads the installed plugins.

    Raises:
        BrokenLawError: the first law that it breaks, with what was found.
        PluginError: it cannot be built.
    """
    case = AdapterCase(params, config, batch, registry or load_plugins())
    for law in LAWS:
        with holding(law_name(law), params.name):
            law(case)


def the_model_type_is_declared(case: AdapterCase) -> None:
    declared = case.params.model_types
    expect(case.model_type in declared, f"model_types is {declared}; the configuration says '{case.model_type}'")


def what_can_be_quantized_is_a_matrix_of_the_model(case: AdapterCase) -> None:
    model, seen = case.model(), set[str]()
    for name, module in case.adapter.quantizable(model):
        expect(name not in seen, f"{name} is given twice")
        seen.add(name)
        found: Any = find_layer(model, name)
        expect(found is not None, f"the model has no module '{name}'")
        weight = getattr(module, "weight", None)
        same = found is module or (kind_of(module) is kind_of(found) and getattr(found, "weight", None) is weight)
        expect(same, f"{name} is another module than the model's of that name")
        expect(isinstance(weight, Tensor) and weight.ndim > 1, f"{name} has no weight with rows and columns")
    expect(seen, "nothing can be quantized")


def every_linear_layer_can_be_quantized_or_says_why_not(case: AdapterCase) -> None:
    model, why = case.model(), case.adapter.why_left_out
    names = {name for name, _ in case.adapter.quantizable(model)}
    for name, module in model.named_modules():
        if not is_plain(module) or name in names or why(name) is not None:
            continue
        kind = case.adapter.role(f"{name}.weight").kind
        expect(
            kind in _NO_MATRIX_PART,
            f"{name} ({kind}) is not given by quantizable; give it, or a reason in why_left_out",
        )


def every_matrix_has_its_role(case: AdapterCase) -> None:
    model, roles = case.model(), dict[TensorRole, str]()
    ends = {} if case.facts.image else _ends(model)
    for name, module in case.adapter.quantizable(model):
        kind = kind_of(module)
        full = kind.parameter_name(name) if kind is not None else f"{name}.weight"
        role = case.adapter.role(full)
        expect(isinstance(role, TensorRole), f"role('{full}') is {role!r}, not a TensorRole")
        wanted = ends.get(id(module), role.kind)
        expect(wanted == role.kind, f"role('{full}') is '{role.kind}', not '{wanted}'")
        expect(role.layer is None or role.kind != "other", f"role('{full}') of layer {role.layer} is 'other'")
        if role.kind != "other":
            expect(role not in roles, f"{full} and {roles.get(role)} have the same role {role}")
            roles[role] = full
    layers = {role.layer for role in roles if role.layer is not None}
    expected = set(range(case.text_config.num_hidden_layers))
    expect(layers == expected, f"roles name the layers {sorted(layers)}, the model has {sorted(expected)}")
    for name, _ in model.named_parameters():
        expect(isinstance(case.adapter.role(name), TensorRole), f"role('{name}') is no TensorRole")


def _ends(model: Any) -> dict[int, str]:
    """Roles of embedding and head of a language model, by the `id` of the module."""
    return {id(model.get_input_embeddings()): "embedding", id(model.get_output_embeddings()): "head"}


def facts_are_those_of_the_model(case: AdapterCase) -> None:
    model, facts = case.model(), case.adapter.facts(case.config)
    expect(isinstance(facts, ModelFacts), f"facts gives a {type(facts).__name__}, not a ModelFacts")
    expect(facts == case.adapter.facts(case.config.to_dict()), "facts of config.json differ from those of the object")
    counts = {len(facts.ropes), len(facts.windows)}
    expect(counts == {facts.layers}, f"ropes and windows are those of {sorted(counts)} layers, not of {facts.layers}")
    if facts.image is not None:
        classes = case.logits(model).shape[-1]
        expect(facts.vocab == classes, f"vocab is {facts.vocab}; the model tells {classes} classes apart")
        _expect_biases(case, model)
        return
    tied = model.get_input_embeddings().weight is model.get_output_embeddings().weight
    expect(facts.tied == tied, f"tied is {facts.tied}; of the model it is {tied}")
    present: dict[int | None, set[str]] = {}
    for name, parameter in model.named_parameters():
        role = case.adapter.role(name)
        if not role.bias:
            present.setdefault(role.layer, set()).add(role.kind)
            wanted, shape = facts.shape(role.kind), tuple(parameter.shape)
            expect(wanted in (None, shape), f"{name} ({role.kind}) has shape {shape}; the facts say {wanted}")
    _expect_biases(case, model)
    _expect_layers(facts, present)
    _expect_frequencies(facts, model)


def _expect_biases(case: AdapterCase, model: Any) -> None:
    """The roles with a bias, norms left aside, are those that the facts name."""
    roles = (case.adapter.role(name) for name, _ in model.named_parameters())
    biases = {role.kind for role in roles if role.bias and role.kind != "other" and not role.kind.endswith("norm")}
    expect(case.facts.biases == biases, f"biases are {sorted(case.facts.biases)}; the model has {sorted(biases)}")


def _expect_layers(facts: ModelFacts, present: dict[int | None, set[str]]) -> None:
    """Every layer has the norms and, in a dense model, the matrices that the facts name, and no norms besides."""
    named, fused = set(facts.layer_roles()), {role for matrices in facts.fused.values() for role, _ in matrices}
    for layer in range(facts.layers):
        found = present.get(layer, set())
        norms, wanted = ({kind for kind in kinds if kind.endswith("norm")} for kinds in (found, named))
        expect(norms == wanted, f"layer {layer} has the norms {sorted(norms)}; the facts say {sorted(wanted)}")
        lacking = sorted(named - found - fused)
        expect(facts.experts > 0 or not lacking, f"layer {layer} has no {', '.join(lacking)}")


def _expect_frequencies(facts: ModelFacts, model: Any) -> None:
    """Rotation that is not scaled turns pair i at base ** (-2 i / rotated columns)."""
    rope, table = facts.rope, getattr(getattr(model.get_decoder(), "rotary_emb", None), "inv_freq", None)
    if rope is None or rope.kind != "default" or table is None:
        return
    width = int(facts.head_dim * rope.partial)
    expect(len(table) == width // 2, f"rotation turns {len(table)} pairs of columns; the facts say {width // 2}")
    expected = rope.base ** -(torch.arange(0, width, 2) / width)
    expect(torch.allclose(table, expected, rtol=1e-4), f"rotation has another base than {rope.base}")


def the_forward_pass_is_the_models_own(case: AdapterCase) -> None:
    model = case.model()
    expected = case.logits(model)
    with torch.no_grad():
        output = case.adapter.forward(model, case.batch, {Signal.LOGITS})
    expect_equal(output.logits, expected, "logits differ from those of the model itself")
    expect_equal(case.logits(model), expected, "the model computes something else after a forward pass")


def every_declared_signal_is_given(case: AdapterCase) -> None:
    model = case.model(attention="eager")
    with torch.no_grad():
        output = case.adapter.forward(model, case.batch, case.adapter.signals)
        plain = case.adapter.forward(case.model(), case.batch, {Signal.LOGITS})
    (rows, columns), image = case.positions, case.facts.image
    # A model that runs its layers more than once gives a signal for every time.
    layers, hidden = case.text_config.num_hidden_layers, output.final_hidden
    if output.hidden_states is not None:
        layers = max(layers, len(output.hidden_states) - 1)
    expect(Signal.LOGITS in case.adapter.signals, "signals do not hold LOGITS")
    expect(hidden.shape[:2] == (rows, 1 if image else columns), f"final_hidden has shape {list(hidden.shape)}")
    for signal in case.adapter.signals - {Signal.LOGITS}:
        given = getattr(output, signal.value)
        expect(given is not None, f"{signal.value} is declared and not given")
        expect(getattr(plain, signal.value) is None, f"{signal.value} is given although nobody asked for it")
        count = layers + (signal == Signal.HIDDEN_STATES)
        sparse = signal == Signal.ROUTER_LOGITS and 0 < len(given) <= count
        expect(sparse or len(given) == count, f"{signal.value} has {len(given)} tensors; {count} were expected")
        position = {Signal.ROUTER_LOGITS: 0, Signal.HIDDEN_STATES: 1}.get(signal, 2)
        found, wanted = given[0].shape[position], rows * columns if position == 0 else columns
        expect(found == wanted, f"{signal.value} has {found} positions on axis {position}; {wanted} were expected")
    if Signal.HIDDEN_STATES in case.adapter.signals and not image:
        expect_equal(output.hidden_states[-1], hidden, "the last hidden state differs from final_hidden")


def a_loss_inside_the_head_sees_what_one_outside_does(case: AdapterCase) -> None:
    model, seen = case.model(), []

    def inside(hidden: Tensor, head: Head) -> Tensor:
        seen.append(head.logits(hidden))
        return seen[0].square().mean().reshape(1, 1, 1)

    with torch.no_grad():  # gradients may choose another kernel of attention, with other last bits
        output = case.adapter.forward(model, case.batch, {Signal.LOGITS}, inside_head=inside)
    expect(len(seen) == 1, f"inside_head is called {len(seen)} times in a forward pass")
    expect_equal(seen[0], case.logits(model), "logits inside the head differ from those of the model itself")
    expect(output.inside_head is not None, "ModelOutput.inside_head is not set")
    expected = seen[0].square().mean()
    expect_equal(output.inside_head.sum(), expected, "ModelOutput.inside_head is not what the function returned")


def a_training_step_reaches_every_matrix(case: AdapterCase) -> None:
    student, plan = case.student()
    before, targets = case.logits(student), case.targets()

    def cross_entropy(hidden: Tensor, head: Head) -> Tensor:
        logs = head.logits(hidden).float().log_softmax(dim=-1)
        chosen = logs.gather(-1, targets.next_labels().clamp(min=0).unsqueeze(-1)).squeeze(-1)
        return -(chosen * targets.predictions.shares("token_mean")).sum().reshape(1, 1, 1)

    output = case.adapter.forward(student, case.batch, {Signal.LOGITS}, inside_head=cross_entropy)
    output.inside_head.sum().backward()
    names = [module.parameter_name for module in plan.quantized]
    still = [name for name in names if (one := student.get_parameter(name).grad) is None or not bool(one.any())]
    expect(not still, f"no gradient reaches {', '.join(still[:5])}{' …' if len(still) > 5 else ''}")
    torch.optim.SGD(student.parameters(), lr=0.1).step()
    expect(not torch.equal(case.logits(student), before), "a training step does not change the logits")


def packed_and_reloaded_it_gives_the_same_logits(case: AdapterCase) -> None:
    student, plan = case.student()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "packed"
        case.write(student, plan, folder)
        faults = verify_checkpoint(folder, registry=case.registry).faults
        expect(not faults, f"the packed checkpoint has faults: {'; '.join(faults)}")
        loaded = load_model(folder, dtype=torch.float32, registry=case.registry)
        expect_equal(case.logits(loaded), case.logits(student), "logits of the reloaded model differ")


def states_that_are_asked_for_are_given(case: AdapterCase) -> None:
    if not case.adapter.keeps_layers or Signal.HIDDEN_STATES not in case.adapter.signals:
        return
    model = case.model()
    with torch.no_grad():
        everything = case.adapter.forward(model, case.batch, {Signal.HIDDEN_STATES}).hidden_states
        for layer in (0, len(everything) // 2, len(everything) - 1):
            few = case.adapter.forward(model, case.batch, {Signal.HIDDEN_STATES}, layers={layer}).hidden_states
            expect(len(few) == len(everything), f"with layers={{{layer}}} there are {len(few)} hidden states")
            expect_equal(few[layer], everything[layer], f"with layers={{{layer}}} hidden state {layer} is another")


LAWS = (
    the_model_type_is_declared,
    what_can_be_quantized_is_a_matrix_of_the_model,
    every_linear_layer_can_be_quantized_or_says_why_not,
    every_matrix_has_its_role,
    facts_are_those_of_the_model,
    the_forward_pass_is_the_models_own,
    every_declared_signal_is_given,
    a_loss_inside_the_head_sees_what_one_outside_does,
    a_training_step_reaches_every_matrix,
    packed_and_reloaded_it_gives_the_same_logits,
    states_that_are_asked_for_are_given,
)
