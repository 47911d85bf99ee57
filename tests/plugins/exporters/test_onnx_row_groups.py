"""Rows by width: what is packed is read back by other code, and computes what codes times scale does."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from onnx_cases import round_activations

from edgerazor.core.tensor import QuantizedTensor
from edgerazor.errors import ExportError
from edgerazor.plugins.exporters.onnx import row_groups, verify
from edgerazor.plugins.exporters.onnx.read import read_codes, read_scales
from edgerazor.plugins.exporters.onnx.row_groups import choose_block, pack_rows, split_rows

RANGES = {2: (-2, 1), 4: (-8, 7), 8: (-128, 127)}
QMAX = {2: 1, 4: 7, 8: 127}


def matrix(
    bits: int, group_size: int, seed: int, *, rows: int = 5, groups: int = 2, scale: float = 0.01
) -> QuantizedTensor:
    """Random codes over the whole range, scales of both signs."""
    generator = torch.Generator().manual_seed(seed)
    low, high = RANGES[bits]
    codes = torch.randint(low, high + 1, (rows, groups * group_size), generator=generator, dtype=torch.int8)
    scales = (torch.randn(rows, groups, generator=generator) * scale).clamp(-65504, 65504).half()
    return QuantizedTensor(codes, scales, torch.full((rows,), QMAX[bits], dtype=torch.int8), group_size)


@given(
    bits=st.sampled_from([2, 4, 8]),
    group_size=st.sampled_from([16, 32, 48, 64, 96, 128, 256, 960]),
    seed=st.integers(0, 2**31),
    scale=st.sampled_from([1e-4, 1.0, 2e4]),
)
def test_what_is_packed_is_read_back(bits: int, group_size: int, seed: int, scale: float) -> None:
    tensor = matrix(bits, group_size, seed, scale=scale)
    (group,) = split_rows(tensor, ternary_bits=2, activation_group=None)
    codes, scales = pack_rows(tensor, group)
    # Two bits have no fast kernel for blocks of 16.
    assert codes.shape == group.code_shape and group.bits == (4 if bits == 2 and group_size % 32 else bits)
    assert np.array_equal(read_codes(codes, group.bits, group.columns), tensor.codes.numpy())
    blocks = np.repeat(scales, group.group_size // group.block, axis=1)
    assert np.array_equal(read_scales(blocks, scales.shape[1]), tensor.scale.float().numpy())


@pytest.mark.parametrize("period", [1, 2])
def test_a_large_matrix_is_packed_and_compared_in_parts(period: int, monkeypatch: pytest.MonkeyPatch) -> None:
    tensor = matrix(4, 32, 0, rows=12)
    if period == 2:
        tensor.codes[1::2].clamp_(-1, 1)
        tensor.qmax[1::2] = 1
    groups = split_rows(tensor, ternary_bits=2, activation_group=None)
    whole = [pack_rows(tensor, group)[0] for group in groups]
    monkeypatch.setattr(row_groups, "_CODES_AT_ONCE", 5 * tensor.codes.shape[1])
    monkeypatch.setattr(verify, "_CODES_AT_ONCE", 5 * tensor.codes.shape[1])
    for group, codes in zip(groups, whole, strict=True):
        assert np.array_equal(pack_rows(tensor, group)[0], codes)
        place, index = {"bits": group.bits, "transposed": False}, group.rows.of(len(tensor.codes))
        assert verify._equal_rows(codes, tensor.codes.numpy(), index, place)
        assert not verify._equal_rows(codes[:-1], tensor.codes.numpy(), index, place)
        codes[-1, -1, -1] ^= 1
        assert not verify._equal_rows(codes, tensor.codes.numpy(), index, place)


@given(rows=st.lists(st.booleans(), min_size=1, max_size=24))
def test_every_row_is_in_exactly_one_group(rows: list[bool]) -> None:
    wide = torch.tensor(rows)
    codes = torch.where(wide[:, None], 7, 1).to(torch.int8).expand(-1, 32).contiguous()
    tensor = QuantizedTensor(codes, torch.ones(len(rows), 1).half(), torch.where(wide, 7, 1).to(torch.int8), 32)
    groups = split_rows(tensor, ternary_bits=2, activation_group=None)
    found = np.concatenate([group.rows.of(len(rows)) for group in groups])
    assert sorted(found.tolist()) == list(range(len(rows)))
    for group in groups:
        assert len(group.rows.of(len(rows))) == group.count
        assert {bool(wide[row]) for row in group.rows.of(len(rows))} == {group.bits == 4}


@pytest.mark.parametrize(
    ("group_size", "bits", "activation_group", "block"),
    [
        (256, 2, None, 128),
        (256, 4, None, 256),
        (64, 2, None, 64),
        (96, 4, None, 32),
        (960, 4, None, 64),
        (256, 4, 32, 32),
    ],
)
def test_blocks(group_size: int, bits: int, activation_group: int | None, block: int) -> None:
    assert choose_block(group_size, bits, activation_group) == block


def test_refusals() -> None:
    with pytest.raises(ExportError, match=r"group_size 24 fits no MatMulNBits block \(16, 32, 64, 128, 256\)"):
        choose_block(24, 4, None)
    damaged = matrix(4, 32, 0)
    damaged.codes[0, 0] = -9
    with pytest.raises(ExportError, match=r"codes reach -9..7 but qmax is 7; the checkpoint is damaged"):
        split_rows(damaged, ternary_bits=2, activation_group=None)


@pytest.fixture(scope="module")
def run_product() -> Callable[..., Any]:
    """`run_product(tensor, group, x, level)`: one MatMulNBits in ONNX Runtime."""
    ir, runtime = pytest.importorskip("onnx_ir"), pytest.importorskip("onnxruntime")

    def run(tensor: QuantizedTensor, group: Any, x: np.ndarray, level: int) -> np.ndarray:
        codes, scales = pack_rows(tensor, group)
        repeated = np.repeat(scales.astype(np.float32), group.group_size // group.block, axis=1)
        constants = [
            ir.Value(name=name, const_value=ir.Tensor(array, name=name))
            for name, array in (("B", codes), ("S", repeated))
        ]
        inputs = ir.Value(name="x", shape=ir.Shape(["rows", group.columns]), type=ir.TensorType(ir.DataType.FLOAT))
        values = {
            "K": group.columns,
            "N": group.count,
            "bits": group.bits,
            "block_size": group.block,
            "accuracy_level": level,
        }
        attributes = [ir.AttrInt64(name, value) for name, value in values.items()]
        node = ir.Node("com.microsoft", "MatMulNBits", [inputs, *constants], attributes)
        node.outputs[0].name, node.outputs[0].type = "y", ir.TensorType(ir.DataType.FLOAT)
        opsets = {"": 23, "com.microsoft": 1}
        graph = ir.Graph([inputs], node.outputs, nodes=[node], initializers=constants, opset_imports=opsets)
        content = ir.to_proto(ir.Model(graph, ir_version=10)).SerializeToString()
        session = runtime.InferenceSession(content, providers=["CPUExecutionProvider"])
        return session.run(None, {"x": x})[0]  # type: ignore[no-any-return]

    return run


@pytest.mark.parametrize("block", [32, 64, 128, 256])
@pytest.mark.parametrize("bits", [2, 4, 8])
def test_onnx_runtime_computes_with_codes_times_scale(bits: int, block: int, run_product: Callable[..., Any]) -> None:
    for seed, scale in ((1, 0.01), (2, 3e4), (3, 1e-4)):
        tensor = matrix(bits, block, seed, rows=33, scale=scale)
        (group,) = split_rows(tensor, ternary_bits=2, activation_group=None)
        one_hot = np.eye(group.columns, dtype=np.float32)
        assert np.array_equal(run_product(tensor, group, one_hot, 0).T, tensor.dequantize().numpy())


@pytest.mark.parametrize("rows", [1, 8])
@pytest.mark.parametrize("block", [32, 64, 128, 256])
@pytest.mark.parametrize("bits", [2, 4, 8])
def test_level_4_is_int8_activations_per_block(
    bits: int, block: int, rows: int, run_product: Callable[..., Any]
) -> None:
    tensor = matrix(bits, block, 4, rows=64, groups=4)
    (group,) = split_rows(tensor, ternary_bits=2, activation_group=None)
    x = np.random.default_rng(0).standard_normal((rows, group.columns)).astype(np.float32)
    expected = round_activations(x, group.block).astype(np.float64) @ tensor.dequantize().numpy().T.astype(np.float64)
    found = run_product(tensor, group, x, 4)
    assert np.linalg.norm(found - expected) <= 1e-6 * np.linalg.norm(expected)
