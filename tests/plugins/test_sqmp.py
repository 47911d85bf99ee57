"""`sqmp` is `int` on the high part and ternary absmean on the rest; the placements say which is which (METHOD 2)."""

from fractions import Fraction
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from edgerazor.errors import PlanError
from tests.plugins.quantizer_cases import PARAMETERS, REGISTRY, build

ROWS, COLUMNS, SIZE = 40, 256, 32
GROUPS = COLUMNS // SIZE


def weight(seed: int = 0) -> Tensor:
    """Groups of very different variance."""
    generator = torch.Generator().manual_seed(seed)
    spread = torch.rand(ROWS, GROUPS, 1, generator=generator) + 0.1
    return (torch.randn(ROWS, GROUPS, SIZE, generator=generator) * spread).reshape(ROWS, COLUMNS)


def high_groups(values: dict[str, Any], w: Tensor) -> Tensor:
    """bool `[R, G]` of what is wider than ternary."""
    qmax = build("sqmp", **values, group_size=SIZE).quantize(w).qmax
    return (qmax if qmax.ndim == 2 else qmax.unsqueeze(-1).expand(-1, GROUPS)) > 1


@pytest.mark.parametrize("values", PARAMETERS["sqmp"], ids=str)
@pytest.mark.parametrize("scale_dtype", ["float16", "float32"])
def test_each_part_is_quantized_as_by_its_own_quantizer(values: dict[str, Any], scale_dtype: str) -> None:
    w, common = weight(), {"group_size": SIZE, "scale_dtype": scale_dtype}
    mixed = build("sqmp", **values, **common).fake_quantize(w).reshape(ROWS, GROUPS, SIZE)
    high = build("int", bits=values.get("high_bits", 4), **common).fake_quantize(w).reshape(ROWS, GROUPS, SIZE)
    low = build("ternary", **common).fake_quantize(w).reshape(ROWS, GROUPS, SIZE)
    assert torch.equal(mixed, torch.where(high_groups(values, w).unsqueeze(-1), high, low))


@pytest.mark.parametrize(("ratio", "spacing"), [(0.5, 2), (0.125, 8), ("1/3", 3), ("1/7", 7), (1, 1), (0.01, 100)])
def test_every_nth_row_is_high_from_the_first(ratio: float | str, spacing: int) -> None:
    high = high_groups({"high_ratio": ratio}, weight())
    assert high.all(dim=-1).nonzero().flatten().tolist() == list(range(0, ROWS, spacing))
    assert int(high.any(dim=-1).sum()) == -(-ROWS // spacing)


def test_ratio_zero_is_all_ternary() -> None:
    assert not bool(high_groups({"high_ratio": 0}, weight()).any())
    assert build("sqmp", high_ratio=0).widths((ROWS, COLUMNS)) == {1: ROWS * COLUMNS}


@pytest.mark.parametrize("ratio", [0.25, 0.3, 0.29, 0.55])
def test_placements_take_the_groups_they_name(ratio: float) -> None:
    w, exact = weight(), Fraction(str(ratio))
    groups = w.reshape(ROWS, GROUPS, SIZE)
    count, index = int(ROWS * GROUPS * exact), torch.arange(ROWS * GROUPS)

    def of(placement: str) -> Tensor:
        return high_groups({"high_ratio": ratio, "placement": placement}, w)

    assert torch.equal(of("first_groups").flatten(), index < count)
    assert torch.equal(of("strided_groups").flatten(), index % 100 < int(100 * exact))
    assert torch.equal(of("first_columns"), (torch.arange(GROUPS) < int(GROUPS * exact)).expand(ROWS, GROUPS))
    by_group = groups.var(dim=-1).flatten()
    chosen = of("variance_groups").flatten()
    assert int(chosen.sum()) == count and float(by_group[chosen].min()) >= float(by_group[~chosen].max())
    by_row, rows = w.var(dim=-1), of("variance_rows").all(dim=-1)
    assert int(rows.sum()) == int(ROWS * exact) and float(by_row[rows].min()) >= float(by_row[~rows].max())


@pytest.mark.parametrize("placement", ["variance_rows", "variance_groups"])
def test_equal_variances_keep_the_lower_index(placement: str) -> None:
    w = torch.randn(1, SIZE, generator=torch.Generator().manual_seed(0)).repeat(ROWS, GROUPS)
    high = high_groups({"high_ratio": 0.25, "placement": placement}, w)
    assert torch.equal(high.flatten(), torch.arange(ROWS * GROUPS) < ROWS * GROUPS // 4)


@pytest.mark.parametrize(
    ("ratio", "nearest"),
    [(0.3, ("'1/3'", "'1/4'")), (0.6, ("'1'", "'1/2'")), (0.34, ("'1/2'", "'1/3'")), ("2/3", ("'1'", "'1/2'"))],
)
def test_an_unusable_ratio_names_its_neighbours(ratio: float | str, nearest: tuple[str, str]) -> None:
    with pytest.raises(ValidationError) as error:
        REGISTRY.params("quantizer", "sqmp", high_ratio=ratio)
    assert all(name in str(error.value) for name in nearest)


@pytest.mark.parametrize("ratio", [-0.1, 1.5, "half", "1/0", True, float("nan"), float("inf"), None, [1]])
def test_what_is_no_share_is_refused(ratio: Any) -> None:
    with pytest.raises(ValidationError, match="high_ratio"):
        REGISTRY.params("quantizer", "sqmp", high_ratio=ratio)


def test_strided_groups_need_whole_hundredths() -> None:
    with pytest.raises(ValidationError, match="hundredths"):
        REGISTRY.params("quantizer", "sqmp", high_ratio=0.125, placement="strided_groups")


@pytest.mark.parametrize(
    ("placement", "shape"),
    [
        ("variance_rows", (7, 256)),
        ("variance_groups", (1, 224)),
        ("first_groups", (1, 224)),
        ("first_columns", (40, 128)),
    ],
)
def test_a_ratio_that_gives_no_high_part_is_refused(placement: str, shape: tuple[int, int]) -> None:
    quantizer = build("sqmp", high_ratio=0.125, placement=placement, group_size=32)
    with pytest.raises(PlanError, match="no high part"):
        quantizer.check_shape(shape)
    with pytest.raises(PlanError, match="no high part"):
        quantizer.quantize(torch.ones(shape))


def test_listed_rows_are_high_and_no_others() -> None:
    high = high_groups({"placement": "rows", "high_rows": "1, 4-6, 39"}, weight())
    assert high.all(dim=-1).nonzero().flatten().tolist() == [1, 4, 5, 6, 39]
    assert int(high.any(dim=-1).sum()) == 5
    quantizer = build("sqmp", placement="rows", high_rows="1, 4-6, 39", group_size=SIZE)
    assert quantizer.widths((ROWS, COLUMNS)) == {1: 35 * COLUMNS, 7: 5 * COLUMNS}
    with pytest.raises(PlanError, match="lists row 39 of a matrix of 39 rows"):
        quantizer.check_shape((39, COLUMNS))
    assert quantizer.params.summary() == "sqmp group_size=32 placement=rows high_rows=5"


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({}, "needs 'high_ratio'"),
        ({"placement": "rows"}, "go together"),
        ({"high_ratio": 0.5, "high_rows": "1"}, "go together"),
        ({"high_ratio": 0.5, "high_rows": "1", "placement": "rows"}, "high_ratio says nothing"),
        ({"high_rows": "3, 1", "placement": "rows"}, "'1' comes after row 3"),
        ({"high_rows": True, "placement": "rows"}, "high_rows"),
    ],
)
def test_rows_are_listed_with_their_placement_alone(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        REGISTRY.params("quantizer", "sqmp", **values)


def test_rows_go_by_position_so_sqmp_is_not_independent() -> None:
    quantizer = build("sqmp", high_ratio=0.5, group_size=SIZE)
    w = weight()
    assert not quantizer.rows_independent
    assert not torch.equal(quantizer.fake_quantize(w[1:2]), quantizer.fake_quantize(w)[1:2])


def test_decimals_are_exact() -> None:
    """0.29 of 200 groups is 58, where int(200 * 0.29) is 57."""
    quantizer = build("sqmp", high_ratio=0.29, placement="first_groups", group_size=32)
    assert quantizer.widths((100, 64)) == {1: 142 * 32, 7: 58 * 32}
