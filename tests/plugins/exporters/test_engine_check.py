"""An export takes its place only after its engine has run it; where no engine is installed, that is said."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import pytest
from gguf_cases import BODIES, pack_case, rules
from numpy.typing import NDArray

pytest.importorskip("onnx_ir")
pytest.importorskip("onnxruntime")

from edgerazor.core.discovery import load_plugins
from edgerazor.core.registry import Component, Registry
from edgerazor.errors import ExportError
from edgerazor.export.engine import try_engine
from edgerazor.export.export import export_to, verify_export
from edgerazor.plugins.exporters.onnx.runtime import OnnxRuntime
from edgerazor.plugins.exporters.params import ONNXParams

pytestmark = pytest.mark.slow
ONE_LAYER: dict[str, Any] = {"num_hidden_layers": 1, "weights": rules(BODIES["4"], 32)}


class Failing(OnnxRuntime):
    """An engine that reads any folder and can compute nothing."""

    def compute(self, ids: Sequence[int], *, every: bool) -> NDArray[np.float32]:
        raise ExportError(f"{self.path}: no kernel for this operator")


class Nonsense(OnnxRuntime):
    """An engine with a fault in a kernel."""

    def compute(self, ids: Sequence[int], *, every: bool) -> NDArray[np.float32]:
        return super().compute(ids, every=every) * np.float32("nan")


class Narrow(OnnxRuntime):
    """An engine that knows one token fewer than it says."""

    def __init__(self, path: Path):
        self.path, self.engine, self.vocabulary_size, self.context_length = path, "Narrow 1", 10, 8

    def compute(self, ids: Sequence[int], *, every: bool) -> NDArray[np.float32]:
        return np.zeros((len(ids) if every else 1, 9), dtype=np.float32)

    def close(self) -> None:
        """There is nothing to drop."""


class NarrowParams(ONNXParams):
    name: Literal["narrow"] = "narrow"  # type: ignore[assignment]
    runtime: ClassVar[str] = f"{__name__}:Narrow"


class FailingParams(ONNXParams):
    name: Literal["failing"] = "failing"  # type: ignore[assignment]
    runtime: ClassVar[str] = f"{__name__}:Failing"


class NonsenseParams(ONNXParams):
    name: Literal["nonsense"] = "nonsense"  # type: ignore[assignment]
    runtime: ClassVar[str] = f"{__name__}:Nonsense"


@pytest.fixture(scope="module")
def checkpoint(registry: Registry, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return pack_case(tmp_path_factory.mktemp("case"), registry, **ONE_LAYER)


def registry_with(*declared: type[ONNXParams]) -> Registry:
    known = load_plugins(external=False)
    added = {("exporter", params.component_name()): Component(params, "test", __name__) for params in declared}
    return Registry({**known._components, **added}, known.plugins)  # type: ignore[dict-item]


@pytest.mark.parametrize(
    ("params", "reason"),
    [(FailingParams, r"cannot run it: no kernel for this"), (NonsenseParams, r"gives logits that are no numbers")],
)
def test_what_its_engine_cannot_run_never_takes_its_place(
    checkpoint: Path, tmp_path: Path, params: type[ONNXParams], reason: str
) -> None:
    registry, path = registry_with(params), tmp_path / "model"
    with pytest.raises(ExportError, match=f"^{path}: equals the checkpoint, but ONNX Runtime .*{reason}"):
        export_to(checkpoint, params.component_name(), path, registry=registry)
    assert list(tmp_path.iterdir()) == []


def test_logits_of_another_width_are_refused_with_both_widths(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"but Narrow 1 gives 9 logits a token; its vocabulary has 10 tokens$"):
        try_engine("narrow", tmp_path, registry_with(NarrowParams))


def test_a_head_that_the_operator_does_not_take_is_refused_and_portable_runs(
    registry: Registry, tmp_path: Path
) -> None:
    folder = pack_case(tmp_path / "case", registry, head_dim=24, **ONE_LAYER)
    with pytest.raises(ExportError, match=r"^head_dim 24: .* takes multiples of 16; set portable to true$"):
        export_to(folder, "onnx", tmp_path / "model", registry=registry)
    assert not (tmp_path / "model").exists()
    result = export_to(folder, "onnx", tmp_path / "model", ["portable=true"], registry=registry)
    assert str(result.details["engine"]).startswith("ONNX Runtime ")
    compared = verify_export(tmp_path / "model", folder, registry=registry)
    assert compared.different == () and compared.engine == result.details["engine"]


def test_without_its_engine_an_export_says_that_it_was_not_run(
    checkpoint: Path, registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    for name in ("runtime", "classifier_runtime"):
        monkeypatch.delitem(sys.modules, f"edgerazor.plugins.exporters.onnx.{name}", raising=False)
    result = export_to(checkpoint, "onnx", tmp_path / "model", registry=registry)
    notes: Any = result.details["notes"]
    assert result.details["engine"] is None
    assert any("model was compared, not run: " in note and "onnxruntime is not installed" in note for note in notes)
