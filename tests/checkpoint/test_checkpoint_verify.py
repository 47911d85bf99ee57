"""`verify` finds every fault and names its tensor; a sound checkpoint has none."""

import shutil

import pytest
import torch

from edgerazor.checkpoint import verify_checkpoint
from edgerazor.core.packing import unpack_t5
from edgerazor.errors import CheckpointError
from tests.packed_cases import CASES, edit_json, edit_tensors, make_student

pytestmark = pytest.mark.slow

UP, EMBED, Q = "model.layers.0.mlp.up_proj", "model.embed_tokens", "model.layers.0.self_attn.q_proj"


@pytest.fixture(scope="module")
def original(build_model, registry, tmp_path_factory):
    folder = tmp_path_factory.mktemp("original")
    rules = [
        {"match": "*.embed_tokens", "quantizer": {"name": "int", "bits": 3, "group_size": 67}},
        {"match": "lm_head", "quantizer": {"name": "int", "bits": 8, "group_size": 67}},
        {"match": "*", "quantizer": {"name": "sqmp", "high_ratio": 0.125}},
    ]
    # 67 columns leave a tail in the last byte of both t5 and i4.
    values = {"hidden_size": 67, "tie_word_embeddings": False, "vocab_size": 99}
    student = make_student(
        lambda family, **_: build_model(family, **values), registry, folder, weights=rules, activations=None
    )
    student.write(folder / "packed")
    return folder / "packed"


@pytest.fixture
def folder(original, tmp_path):
    return shutil.copytree(original, tmp_path / "packed")


def change(name, row, column, value):
    def edit(tensors):
        tensors[name][row, column] = value

    return edit


def replace(name, make):
    return lambda tensors: tensors.update({name: make(tensors[name])})


FAULTS = {
    "impossible byte": (change(f"{UP}.weight_t5", 4, 2, 243), f"{UP}.weight_t5: 1 bytes are above 242"),
    "ternary tail": (change(f"{UP}.weight_t5", 4, -1, 0), f"{UP}.weight_t5: codes after column 67 are not 0"),
    "int4 tail": (change(f"{UP}.weight_i4", 4, -1, 0x98), f"{UP}.weight_i4: the code after column 67 is not 0"),
    "code out of range": (change(f"{EMBED}.weight_i4", 4, 2, 0xFF), f"{EMBED}.weight: 2 codes are outside"),
    "infinite scale": (change(f"{UP}.weight_scale", 4, 0, torch.inf), f"{UP}.weight_scale: holds NaN or infinite"),
    "tiny scale": (change(f"{UP}.weight_scale", 4, 0, 2**-15), f"{UP}.weight_scale: holds scales below 2^-14"),
    "negative scale": (change(f"{UP}.weight_scale", 4, 0, -1.0), f"{UP}.weight_scale: holds negative scales"),
    "row count": (
        replace(f"{UP}.weight_rows", torch.zeros_like),
        f"{UP}.weight_rows: marks 0 rows, config.json says 12",
    ),
    "wrong shape": (replace(f"{UP}.weight_scale", lambda scale: scale[:-1]), f"{UP}.weight_scale: is float16 [95, 1]"),
    "wrong dtype": (replace(f"{UP}.weight_scale", torch.Tensor.float), f"{UP}.weight_scale: is float32 [96, 1]"),
    "norm of integers": (replace("model.norm.weight", torch.Tensor.int), "model.norm.weight: is int32 [67]"),
    "norm of NaN": (replace("model.norm.weight", lambda norm: norm * torch.nan), "model.norm.weight: holds NaN"),
    "missing": (lambda tensors: tensors.pop(f"{UP}.weight_rows"), f"{UP}.weight_rows: is missing"),
    "missing norm": (lambda tensors: tensors.pop("model.norm.weight"), "model.norm.weight: is missing"),
    "missing guard": (lambda tensors: tensors.pop(f"{EMBED}.weight"), f"{EMBED}.weight: is missing"),
    "stray": (lambda tensors: tensors.update(extra=torch.zeros(2)), "extra: is no tensor of this model (float32 [2])"),
    "another code": (change("lm_head.weight_i8", 4, 2, -128), "config.json: content_sha256 is "),
}


@pytest.mark.parametrize("what", FAULTS)
def test_a_fault_in_a_tensor_is_named(what, folder):
    edit, message = FAULTS[what]
    edit_tensors(folder, edit)
    result = verify_checkpoint(folder)
    assert not result.ok and len(result.faults) == 1
    assert result.faults[0].startswith(message)
    with pytest.raises(CheckpointError, match=f"{folder}: "):
        result.raise_if_damaged()


def test_padding_of_the_row_bitmap_is_checked(build_model, registry, tmp_path):
    make_student(build_model, registry, tmp_path, "rows-of-two-kinds").write(tmp_path / "packed")
    name = f"{EMBED}.weight_rows"

    def set_last_bit(tensors):
        tensors[name][-1] |= 128

    edit_tensors(tmp_path / "packed", set_last_bit)
    assert verify_checkpoint(tmp_path / "packed").faults == (f"{name}: bits after row 99 are set",)


def test_all_faults_are_listed(folder):
    def edit(tensors):
        tensors[f"{UP}.weight_t5"][0, 0] = 255
        tensors[f"{Q}.weight_scale"][0, 0] = torch.nan
        tensors["extra"] = torch.zeros(1)

    edit_tensors(folder, edit, rehash=False)
    faults = verify_checkpoint(folder).faults
    assert [fault.partition(":")[0] for fault in faults] == [
        "model.safetensors",
        "extra",
        f"{UP}.weight_t5",
        f"{Q}.weight_scale",
    ]


def test_a_flipped_bit_anywhere_is_found(folder):
    edit_tensors(folder, change(f"{EMBED}.weight_i4", 3, 1, 0x77), rehash=False)
    assert (
        verify_checkpoint(folder).faults[0]
        == "model.safetensors: its content differs from the digest in edgerazor.json"
    )
    edit_json(folder / "generation_config.json", lambda content: content.update(top_k=3))
    (folder / "README.md").write_text("other")
    assert any(fault.startswith("README.md: has 5 bytes") for fault in verify_checkpoint(folder).faults)


def test_files_that_cannot_be_read_are_faults(folder):
    (folder / "README.md").unlink()
    assert verify_checkpoint(folder).faults == ("README.md: is missing",)
    content = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(content[:-4])
    assert any("model.safetensors: is cut off" in fault for fault in verify_checkpoint(folder).faults)
    (folder / "edgerazor.json").unlink()
    assert "edgerazor.json: is missing" in verify_checkpoint(folder).faults[0]


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_a_sound_checkpoint_has_no_fault(case, build_model, registry, tmp_path):
    report = make_student(build_model, registry, tmp_path, case).write(tmp_path / "packed")
    result = verify_checkpoint(tmp_path / "packed", logits=case in ("tied", "untied"))
    assert result.faults == () and result.digest == report.digest
    assert result.bits_per_weight == pytest.approx(report.file_bits)
    assert result.bytes + (tmp_path / "packed" / "edgerazor.json").stat().st_size == report.bytes


def test_the_tail_of_a_ternary_row_is_code_zero(original):
    from edgerazor.checkpoint import open_checkpoint

    packed = open_checkpoint(original).load(f"{UP}.weight_t5")
    assert not unpack_t5(packed, 70)[:, 67:].any()
