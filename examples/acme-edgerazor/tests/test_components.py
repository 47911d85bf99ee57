"""Every component keeps the laws of its contract; what is special to one is told by a figure or two."""

import pytest
import torch
from acme_edgerazor.fp4 import round_to_e2m1
from acme_edgerazor.params import EveryNthParams, Exaone4Params, FP4Params, NPZParams, TotalVariationParams
from transformers import Exaone4Config

from edgerazor.testing import check_adapter, check_exporter, check_loss, check_quantizer, check_selector

SMALL = {"vocab_size": 64, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2}
SPECIAL = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
HEADS = {"num_attention_heads": 4, "num_key_value_heads": 2}


@pytest.mark.parametrize(("group_size", "scale_dtype"), [(16, "float16"), (None, "float16"), (32, "float32")])
def test_fp4(group_size, scale_dtype):
    check_quantizer(FP4Params(group_size=group_size, scale_dtype=scale_dtype))


def test_fp4_rounds_to_the_nearest_level():
    values = torch.tensor([0.4, 0.5, 0.6, 1.5, 2.5, -3.4, 3.5, 5.0, 5.1, 7.0, 9.9, 10.0, -10.1, 40.0])
    levels = torch.tensor([0.0, 0.0, 1.0, 2.0, 2.0, -3.0, 4.0, 4.0, 6.0, 8.0, 8.0, 8.0, -12.0, 12.0])
    assert torch.equal(round_to_e2m1(values), levels)


@pytest.mark.parametrize("reduction", ["sequence_mean", "token_mean"])
def test_total_variation(reduction):
    check_loss(TotalVariationParams(reduction=reduction, temperature=2.0))


@pytest.mark.parametrize("n", [1, 2, 5, 9])
def test_every_nth(n):
    check_selector(EveryNthParams(n=n))


@pytest.mark.parametrize(("first", "window"), [("full_attention", None), ("sliding_attention", 4)])
def test_exaone4(first, window):
    layers = {"layer_types": [first, "full_attention"], "sliding_window": window}
    check_adapter(Exaone4Params(), Exaone4Config(**SMALL, **HEADS, **SPECIAL, **layers))


def test_npz():
    check_exporter(NPZParams(path="model.npz"))
