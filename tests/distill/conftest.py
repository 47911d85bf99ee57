"""A batch with masked labels, a student and its teacher, for tests of the composed step."""

import pytest
import torch


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(0, 96, (3, 20), generator=generator)
    labels = ids.clone()
    labels[0, :5], labels[2] = -100, -100
    return {"input_ids": ids, "labels": labels}


@pytest.fixture
def pair(build_model, quantize_model):
    return quantize_model(build_model(seed=1)), build_model(seed=0)
