"""Built-in adapters pass the check; every fault is caught by the law that names it."""

from typing import Any

import pytest
import torch
from transformers import LlamaConfig, Qwen3Config

from edgerazor.testing import BrokenLawError, check_adapter
from edgerazor.testing.adapter import LAWS, the_model_type_is_declared
from edgerazor.testing.laws import law_name
from tests.adapters.image_models import IMAGE_FAMILIES
from tests.adapters.omni_cases import batches
from tests.families import FAMILIES, SMALL, family_config
from tests.testing import faulty_adapters
from tests.testing.faults import REGISTRY, faulty, unbroken, with_code

LLAMA = REGISTRY.params("adapter", "llama")
SMALL_LLAMA = LlamaConfig(**SMALL, tie_word_embeddings=False)


def case(name: str) -> tuple[Any, Any, Any]:
    """Parameters of the adapter, configuration and batch of a family."""
    model_type, _ = FAMILIES[name]
    declared = next(
        declaration for declaration in REGISTRY.adapter_declarations() if model_type in declaration.model_types
    )
    params = declared(name=declared.component_name())
    return params, family_config(name), batches()["image"] if name == "omni" else None


@pytest.mark.slow
@pytest.mark.parametrize("name", FAMILIES)
def test_built_in_adapters_keep_the_laws(name: str) -> None:
    params, config, batch = case(name)
    check_adapter(params, config, batch=batch, registry=REGISTRY)


def test_every_built_in_adapter_is_checked() -> None:
    checked = {model_type for model_type, _ in FAMILIES.values()} | {*IMAGE_FAMILIES.values()}
    assert all(checked & set(declared.model_types) for declared in REGISTRY.adapter_declarations())


@pytest.mark.slow
@pytest.mark.parametrize("code", faulty(faulty_adapters))
def test_a_fault_is_named(code: Any) -> None:
    with pytest.raises(BrokenLawError) as caught:
        check_adapter(with_code(LLAMA, code), SMALL_LLAMA, registry=REGISTRY)
    assert caught.value.law == law_name(code.breaks), caught.value


def test_every_other_law_is_broken_by_some_fault() -> None:
    assert unbroken(LAWS, faulty_adapters) == {the_model_type_is_declared.__name__}


def test_a_configuration_of_another_type_is_named() -> None:
    with pytest.raises(BrokenLawError, match=r"the model type is declared: .* the configuration says 'qwen3'"):
        check_adapter(LLAMA, Qwen3Config(**SMALL), registry=REGISTRY)


def test_random_numbers_go_on_as_if_nothing_had_been_checked() -> None:
    before = torch.random.get_rng_state()
    check_adapter(LLAMA, SMALL_LLAMA, registry=REGISTRY)
    assert torch.equal(torch.random.get_rng_state(), before)
