"""Every family in ONNX Runtime: logits of its folder against Transformers' own classes, and the operators it takes."""

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from onnx_cases import make_onnx

from edgerazor.checkpoint import PackedCheckpoint, load_model, open_checkpoint, pack_model
from edgerazor.core.registry import Registry
from edgerazor.errors import ExportError
from edgerazor.inference.open_runtime import open_runtime
from edgerazor.schemas.recipe import load_recipe
from tests.families import LLAMA3_ROPE, LONG_ROPE, family_model

ir = pytest.importorskip("onnx_ir")
pytest.importorskip("onnxruntime")
pytestmark = pytest.mark.slow

INT4 = [{"match": "*", "quantizer": {"name": "int", "bits": 4, "group_size": 32}}]
SQMP = [{"match": "*", "quantizer": {"name": "sqmp", "high_ratio": 0.125, "group_size": 32}}]
SHORT = {"num_hidden_layers": 1}
YARN = {"rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0, "original_max_position_embeddings": 16}
# 48 columns of 64 turn, as the operator needs multiples of 16.
PARTIAL = {**LONG_ROPE, "short_factor": [1 + step / 8 for step in range(24)], "long_factor": [4.0] * 24}
ONE_HEAD = {"head_dim": 64, "num_attention_heads": 1, "num_key_value_heads": 1, "rope_parameters": PARTIAL}
TWO_KINDS = {"num_hidden_layers": 2, "layer_types": ["sliding_attention", "full_attention"]}


@dataclass(frozen=True)
class Case:
    """A family of tests/families.py.

    Attributes:
        family: its name there.
        changes: of its configuration.
        rules: what quantizes it.
        windows: `local_window_size` of each layer.
        tables: columns of the tables of each layer; 0 where it does not turn.
        portable: by operators of the standard.
    """

    family: str
    changes: dict[str, Any]
    rules: list[dict[str, Any]]
    windows: tuple[int | None, ...] = (None,)
    tables: tuple[int, ...] = (8,)
    portable: bool = False


CASES = {
    "Llama 3.1": Case("llama3", SHORT, INT4),
    "SmolLM3": Case("smollm3", {}, INT4, (None, None), (8, 0)),
    "Mistral": Case("mistral-window", {**SHORT, "rope_parameters": YARN}, INT4, (6,)),
    "Qwen2.5": Case("qwen2", {**SHORT, "rope_parameters": YARN}, INT4),
    "Qwen3": Case("qwen3", {**SHORT, "rope_parameters": LLAMA3_ROPE}, SQMP),
    "Gemma 3": Case("gemma3", TWO_KINDS, INT4, (6, None), (8, 8)),
    "Phi-4-mini": Case("phi4-mini", {**SHORT, **ONE_HEAD}, SQMP, tables=(24,)),
    "OLMo 2": Case("olmo2", SHORT, INT4),
    "Granite 3": Case("granite3", SHORT, INT4),
    "Gemma 3, portable": Case("gemma3", TWO_KINDS, INT4, portable=True),
    "Phi-4-mini, portable": Case("phi4-mini", SHORT, INT4, portable=True),
}


@dataclass
class Family:
    """A case, its checkpoint, the exported folder and the notes on it."""

    case: Case
    checkpoint: PackedCheckpoint
    path: Path
    notes: list[str]


@pytest.fixture(scope="module")
def family(request: pytest.FixtureRequest, registry: Registry, tmp_path_factory: pytest.TempPathFactory) -> Family:
    """One case, exported once: pytest runs the tests of a case one after the other."""
    case, root = CASES[request.param], tmp_path_factory.mktemp("family")
    checkpoint = pack_family(case, registry, root)
    settings = {"accuracy_level": 0, "portable": case.portable}
    result = make_onnx(registry, root / "out", **settings).export(checkpoint, root / "out")
    return Family(case, checkpoint, root / "out", result.details["notes"])


def families(*names: str) -> pytest.MarkDecorator:
    """The fixture `family` with each of these cases."""
    return pytest.mark.parametrize("family", names, indirect=True, scope="module")


every_family = families(*CASES)
every_fused_family = families(*(name for name, case in CASES.items() if not case.portable))


def pack_family(case: Case, registry: Registry, root: Path) -> PackedCheckpoint:
    family_model(case.family, **case.changes).to(torch.bfloat16).save_pretrained(root / "float")
    section = {"model": {"name_or_path": str(root / "float")}, "quantization": {"weights": case.rules}}
    pack_model(load_recipe(section, registry=registry), registry=registry, output=root / "packed")
    return open_checkpoint(root / "packed", registry=registry)


def test_the_guide_lists_what_is_tested_here() -> None:
    page = (Path(__file__).parents[3] / "docs/guide/onnxruntime.md").read_text(encoding="utf-8")
    table = page.partition("| model | in ONNX Runtime |")[2].partition("\n\n")[0]
    assert [row.split(" | ")[0].removeprefix("| ") for row in table.splitlines()[2:]] == list(CASES)


@every_family
def test_logits_are_those_of_transformers(family: Family, registry: Registry) -> None:
    """At once and, past every window, token by token."""
    ids = torch.randint(3, 96, (28,), generator=torch.Generator().manual_seed(3)).tolist()
    model = load_model(family.checkpoint.folder, dtype=torch.float32, dequantize=True)
    with torch.no_grad():
        expected = model(input_ids=torch.tensor([ids])).logits[0].numpy()
    runtime = open_runtime(family.path, registry=registry)
    whole = runtime.feed(ids, every=True)
    runtime.restart()
    steps = np.concatenate([runtime.feed(ids[:4], every=True), *(runtime.feed([token]) for token in ids[4:])])
    runtime.close()
    for found in (whole, steps):
        assert distance(found, expected) < 5e-6


def distance(found: NDArray[np.float32], expected: NDArray[np.float32]) -> float:
    return float((np.linalg.norm(found - expected, axis=-1) / np.linalg.norm(expected, axis=-1)).max())


@every_family
def test_tensors_and_tables_are_those_of_the_checkpoint(family: Family, registry: Registry) -> None:
    assert make_onnx(registry, family.path).verify(family.path, family.checkpoint).different == ()
    model = ir.load(family.path / "model.onnx")
    assert all(list(value.uses()) for value in model.graph.initializers.values())
    if family.case.portable:
        assert set(model.opset_imports) == {""}


@every_fused_family
def test_the_operator_has_windows_and_tables_of_its_layer(family: Family) -> None:
    nodes = [node for node in ir.load(family.path / "model.onnx").graph if node.op_type == "GroupQueryAttention"]
    windows = [
        node.attributes["local_window_size"].value if "local_window_size" in node.attributes else None for node in nodes
    ]
    tables = [node.inputs[7].shape[1] if len(node.inputs) > 7 else 0 for node in nodes]
    assert (tuple(windows), tuple(tables)) == (family.case.windows, family.case.tables)
    assert [node.attributes["do_rotary"].value for node in nodes] == [int(columns > 0) for columns in tables]


@pytest.mark.genai
@every_fused_family
def test_onnxruntime_genai_writes_the_same(family: Family, registry: Registry) -> None:
    genai = pytest.importorskip("onnxruntime_genai")
    ids = torch.randint(3, 96, (9,), generator=torch.Generator().manual_seed(5)).tolist()
    runtime, expected = open_runtime(family.path, registry=registry), list(ids)
    pending = expected
    while len(expected) < 21 and not runtime.stop_ids.intersection(pending):
        pending = [int(runtime.feed(pending)[0].argmax())]
        expected = expected + pending
    runtime.close()
    model = genai.Model(str(family.path))
    parameters = genai.GeneratorParams(model)
    parameters.set_search_options(max_length=21, do_sample=False)
    generator = genai.Generator(model, parameters)
    generator.append_tokens(np.array([ids], dtype=np.int32))
    while not generator.is_done():
        generator.generate_next_token()
    written = [int(token) for token in generator.get_sequence(0)]
    # It keeps a token that ends a text to itself.
    assert written == [token for token in expected if token not in runtime.stop_ids]


@families("Gemma 3")
def test_local_and_global_tables_are_verified_each(family: Family, registry: Registry, tmp_path: Path) -> None:
    model = ir.load(family.path / "model.onnx")
    for name in ("cos_full_attention", "sin_sliding_attention"):
        table = model.graph.initializers[name]
        table.const_value = ir.Tensor(-table.const_value.numpy(), name=name)
    shutil.copytree(family.path, tmp_path / "changed")
    ir.save(model, tmp_path / "changed" / "model.onnx", external_data="model.onnx.data")
    found = make_onnx(registry, tmp_path).verify(tmp_path / "changed", family.checkpoint).different
    assert set(found) == {"cos_full_attention", "sin_sliding_attention"}


@families("Phi-4-mini", "Qwen2.5")
def test_a_context_that_longrope_limits_is_noted(family: Family) -> None:
    said = [note for note in family.notes if note.startswith("context_length 32: in longer texts longrope")]
    assert bool(said) is (family.case == CASES["Phi-4-mini"])
    assert family.checkpoint.facts.context == 64


def test_what_the_operator_cannot_turn_is_refused_by_fact(registry: Registry, tmp_path: Path) -> None:
    checkpoint = pack_family(CASES["Phi-4-mini, portable"], registry, tmp_path)
    with pytest.raises(ExportError, match=r"^head_dim 16, 12 columns of which turn: .*set portable to true$"):
        make_onnx(registry, tmp_path / "out").check(checkpoint)
