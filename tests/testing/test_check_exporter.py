"""Built-in exporters pass the check; every fault is caught by the law that names it."""

from pathlib import Path
from typing import Any

import pytest

from edgerazor.testing import BrokenLawError, check_exporter
from edgerazor.testing.exporter import LAWS
from edgerazor.testing.laws import law_name
from edgerazor.testing.models import packed_example
from tests.testing import faulty_exporters
from tests.testing.faults import REGISTRY, faulty, unbroken, with_code
from tests.testing.faulty_exporters import OfAnotherSuffix, PlainParams

# What an exporter writes; one that is not named here writes a file.
PATHS = {"gguf": "model.gguf", "onnx": "folder", "mlx": "folder"}


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return packed_example(tmp_path_factory.mktemp("example"), REGISTRY)


@pytest.mark.usefixtures("onnx_operators")
@pytest.mark.slow
@pytest.mark.parametrize("name", REGISTRY.names("exporter"))
def test_built_in_exporters_keep_the_laws(packed: Path, name: str) -> None:
    if name == "mlx":
        pytest.importorskip("mlx_lm")  # there are no wheels of MLX for every machine
    params = REGISTRY.params("exporter", name, path=PATHS.get(name, "model"))
    check_exporter(params, checkpoint=packed, registry=REGISTRY)


@pytest.mark.slow
@pytest.mark.parametrize("code", faulty(faulty_exporters))
def test_a_fault_is_named(packed: Path, code: Any) -> None:
    path = "model.other" if code is OfAnotherSuffix else "model.plain"
    with pytest.raises(BrokenLawError) as caught:
        check_exporter(with_code(PlainParams(path=path), code), checkpoint=packed, registry=REGISTRY)
    assert caught.value.law == law_name(code.breaks), caught.value


def test_every_law_is_broken_by_some_fault() -> None:
    assert not unbroken(LAWS, faulty_exporters)


@pytest.mark.slow
def test_what_the_faults_are_made_of_is_sound() -> None:
    check_exporter(PlainParams(path="model.plain"), registry=REGISTRY)
