"""Verification finds what was changed, and says so of files that are none."""

import shutil
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
from gguf_cases import Packed, make

from edgerazor.core.registry import Registry
from edgerazor.errors import ExportError
from edgerazor.plugins.exporters.gguf.read import open_gguf

pytestmark = pytest.mark.slow

CASE = "llama 1.58-bit g64 untied"


@pytest.fixture
def exported(registry: Registry, packed: Packed, tmp_path_factory: pytest.TempPathFactory, tmp_path: Path) -> Path:
    """A file that a test may change."""
    path = tmp_path / "a.gguf"
    make(registry, path).export(packed(CASE), path)
    return path


def different(registry: Registry, packed: Packed, path: Path, case: str = CASE) -> tuple[str, ...]:
    found: tuple[str, ...] = make(registry, path).verify(path, packed(case)).different
    return found


def overwrite(path: Path, position: int, change: Callable[[int], int]) -> None:
    with path.open("r+b") as file:
        file.seek(position)
        byte = file.read(1)[0]
        file.seek(position)
        file.write(bytes([change(byte)]))


@pytest.mark.parametrize(
    ("stored", "name"),
    [
        ("blk.0.attn_q.weight", "model.layers.0.self_attn.q_proj.weight"),
        ("blk.1.attn_k.bias", "model.layers.1.self_attn.k_proj.bias"),
        ("output_norm.weight", "model.norm.weight"),
        ("output.weight", "lm_head.weight"),
    ],
)
def test_one_changed_bit_is_found(stored: str, name: str, registry: Registry, packed: Packed, exported: Path) -> None:
    tensor = open_gguf(exported).tensors[stored]
    overwrite(exported, tensor.start + tensor.bytes - 1, lambda byte: byte ^ 16)
    assert different(registry, packed, exported) == (name,)


def test_rows_in_the_wrong_order_are_found(registry: Registry, packed: Packed, exported: Path) -> None:
    tensor = open_gguf(exported).tensors["blk.0.attn_k.weight"]
    content = bytearray(exported.read_bytes())
    first, second = (tensor.start + row * tensor.row_bytes for row in (0, 1))
    end = second + tensor.row_bytes
    content[first:end] = content[second:end] + content[first:second]
    exported.write_bytes(content)
    assert different(registry, packed, exported) == ("model.layers.0.self_attn.k_proj.weight",)


def test_changed_keys_are_found(registry: Registry, packed: Packed, exported: Path) -> None:
    content = exported.read_bytes()
    theta = content.index(b"llama.rope.freq_base") + len("llama.rope.freq_base") + 4
    assert struct.unpack("<f", content[theta : theta + 4]) == (10000.0,)
    exported.write_bytes(content[:theta] + struct.pack("<f", 500000.0) + content[theta + 4 :])
    assert different(registry, packed, exported) == ("llama.rope.freq_base",)
    for old, new, key in (
        (b"edgerazor.nominal_bits", b"edgerazor.nominal_bytes"[:22], "edgerazor.nominal_bits"),
        (b"general.quantization_version", b"general.quantizatiOn_version", "general.quantization_version"),
    ):
        assert content.count(old) == 1
        exported.write_bytes(content.replace(old, new))
        assert different(registry, packed, exported) == (key,)
    recipe = content.index(b"edgerazor.recipe") + len("edgerazor.recipe") + 4 + 8  # a type and a length come between
    exported.write_bytes(content[: recipe + 2] + b"?" + content[recipe + 3 :])
    assert different(registry, packed, exported) == ("edgerazor.recipe",)
    exported.write_bytes(content.replace(b"attn_output.bias", b"attn_output.bIas"))
    assert set(different(registry, packed, exported)) == {
        "model.layers.0.self_attn.o_proj.bias",
        "model.layers.1.self_attn.o_proj.bias",
        "blk.0.attn_output.bIas",
        "blk.1.attn_output.bIas",
    }


def test_another_checkpoint_differs_in_digest_and_weights(
    registry: Registry, packed: Packed, exported: Path, tmp_path: Path
) -> None:
    found = different(registry, packed, exported, "llama 1.88-bit g32 tied")
    assert "edgerazor.content_sha256" in found and "model.layers.0.mlp.up_proj.weight" in found
    assert "output.weight" in found


def test_damaged_files(registry: Registry, packed: Packed, exported: Path, tmp_path: Path) -> None:
    whole = exported.read_bytes()
    for length in (20, 200, 5000, len(whole) - 200):
        exported.write_bytes(whole[:length])
        with pytest.raises(ExportError, match="cut off"):
            different(registry, packed, exported)
    exported.write_bytes(b"")
    with pytest.raises(ExportError, match="is no GGUF file"):
        different(registry, packed, exported)
    exported.write_bytes(b"GGUF" + bytes([0, 0, 0, 3]) + whole[8:])
    with pytest.raises(ExportError, match="expected 2 or 3, little-endian"):
        different(registry, packed, exported)
    shutil.rmtree(exported, ignore_errors=True)
    with pytest.raises(ExportError, match="No such file"):
        different(registry, packed, tmp_path / "absent.gguf")
