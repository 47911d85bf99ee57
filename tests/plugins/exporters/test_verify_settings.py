"""`edgerazor verify` finds a sound export equal, with whatever parameters it was written."""

from pathlib import Path
from typing import Any

import pytest
from gguf_cases import BODIES, pack_case, rules
from gguf_tokenizers import TEKKEN, byte_level

pytest.importorskip("gguf")

from edgerazor.core.registry import Registry
from edgerazor.errors import ExportError
from edgerazor.export.export import export_to, verify_export
from edgerazor.plugins.exporters.common import RECIPE, read_recipe
from edgerazor.plugins.exporters.gguf.read import read_metadata
from edgerazor.plugins.exporters.params import GGUFParams, ONNXParams

pytestmark = pytest.mark.slow

KEY = "edgerazor.export_settings"
ONE_LAYER: dict[str, Any] = {"num_hidden_layers": 1, "weights": rules(BODIES["4"], 32)}
# Every parameter of GGUF, with a value that is not the default, and what the file says of it.
GGUF = {
    "profile": ("speed_cpu", None),
    "mixed_rows": ("error", None),
    "context_length": ("32", '{"context_length": 32}'),
    "tokenizer_differences": ("note", '{"tokenizer_differences": "note"}'),
    "types": ("[{match: '*.down_proj', type: Q8_0}]", None),
}
# Every parameter of ONNX folders; portable ones are compared in test_onnx_variants.py.
ONNX = {"ternary_storage": "4bit", "accuracy_level": "0", "logits": "last", "context_length": "32", "portable": "false"}


@pytest.fixture(scope="module")
def checkpoint(registry: Registry, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Qwen3 of one layer."""
    return pack_case(tmp_path_factory.mktemp("case"), registry, **ONE_LAYER)


def test_every_parameter_is_tried_here() -> None:
    assert GGUF.keys() == GGUFParams.model_fields.keys() - {"name", "path"}
    assert ONNX.keys() == ONNXParams.model_fields.keys() - {"name", "path"}


@pytest.mark.parametrize("name", GGUF)
def test_a_file_with_another_value_is_equal(name: str, checkpoint: Path, registry: Registry, tmp_path: Path) -> None:
    (value, stated), path = GGUF[name], tmp_path / "model.gguf"
    export_to(checkpoint, "gguf", path, [f"{name}={value}"], registry=registry)
    assert verify_export(path, checkpoint, registry=registry).different == ()
    assert read_metadata(path).get(KEY) == stated


def test_a_file_with_the_defaults_states_none(checkpoint: Path, registry: Registry, tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    export_to(checkpoint, "gguf", path, registry=registry)
    assert KEY not in read_metadata(path) and verify_export(path, checkpoint, registry=registry).different == ()


def test_a_context_that_avoids_windows_is_known_again(registry: Registry, tmp_path: Path) -> None:
    window = {"family": "mistral", "sliding_window": 64, "num_hidden_layers": 1}
    folder, path = pack_case(tmp_path, registry, **window), tmp_path / "model.gguf"
    export_to(folder, "gguf", path, ["context_length=64"], registry=registry)
    assert verify_export(path, folder, registry=registry).different == ()


@pytest.mark.llamacpp
def test_tokens_that_were_tolerated_are_tolerated_again(registry: Registry, tmp_path: Path) -> None:
    """llama.cpp's tekken takes combining marks for signs."""
    pytest.importorskip("llama_cpp")
    tokenizer, path = byte_level(TEKKEN), tmp_path / "model.gguf"
    folder = pack_case(tmp_path, registry, tokenizer=tokenizer, vocab_size=1024, **ONE_LAYER)
    with pytest.raises(ExportError, match="set tokenizer_differences to note"):
        export_to(folder, "gguf", path, registry=registry)
    export_to(folder, "gguf", path, ["tokenizer_differences=note"], registry=registry)
    assert verify_export(path, folder, registry=registry).different == ()


@pytest.mark.parametrize(
    ("stated", "expected"),
    [
        (b'{"context_lengte": 32}', "exporter 'gguf' has no 'context_lengte'; did you mean 'context_length'?"),
        (b'{"context_length": 33}', None),
        (b'["context_length"; 32]', f"{KEY}: cannot be read: "),
        (b'["context_length", 32]', f"{KEY}: expected keys with values"),
    ],
)
def test_settings_that_were_changed_are_found(
    stated: bytes, expected: str | None, checkpoint: Path, registry: Registry, tmp_path: Path
) -> None:
    path = tmp_path / "model.gguf"
    export_to(checkpoint, "gguf", path, ["context_length=32"], registry=registry)
    path.write_bytes(path.read_bytes().replace(b'{"context_length": 32}', stated))
    if expected is None:
        assert verify_export(path, checkpoint, registry=registry).different == ("qwen3.context_length",)
        return
    with pytest.raises(ExportError) as caught:
        verify_export(path, checkpoint, registry=registry)
    assert str(caught.value).startswith(f"{path}: {expected}")


@pytest.mark.parametrize("stated", ["{", "[1]", "[" * 100_000])
def test_a_recipe_that_was_damaged_is_one_message(stated: str) -> None:
    with pytest.raises(ExportError, match=f"^{RECIPE}: "):
        read_recipe({RECIPE: stated})


@pytest.mark.slow
def test_a_folder_with_other_values_is_equal(checkpoint: Path, registry: Registry, tmp_path: Path) -> None:
    pytest.importorskip("onnx_ir")
    settings = [f"{name}={value}" for name, value in ONNX.items()]
    export_to(checkpoint, "onnx", tmp_path / "model", settings, registry=registry)
    assert verify_export(tmp_path / "model", checkpoint, registry=registry).different == ()
