"""One flipped bit in a packed folder is refused by every way to load it, unless that is asked for."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import AutoConfig, AutoModelForCausalLM

from edgerazor.checkpoint import load_model, pack_model, register
from edgerazor.core.discovery import load_plugins
from edgerazor.core.registry import Registry
from edgerazor.errors import CheckpointError, EdgeRazorError
from edgerazor.export.export import export_to
from edgerazor.schemas.recipe import load_recipe
from tests.hub import offline_cache
from tests.runs import recipe

VERSION_0_1 = Path(__file__).parents[1] / "fixtures" / "version_0_1"
OLD = sorted(path.parent.name for path in VERSION_0_1.glob("*/expected.json"))


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory, registry: Registry) -> Path:
    folder = tmp_path_factory.mktemp("packed")
    pack_model(load_recipe(recipe(folder), registry=registry), registry=registry, output=folder / "packed")
    return folder / "packed"


def flip(path: Path, share: float, bit: int = 0) -> None:
    content = bytearray(path.read_bytes())
    content[int(share * len(content))] ^= 1 << bit
    path.write_bytes(content)


def from_pretrained(folder: Path, **options: Any) -> Any:
    register(load_plugins())
    return AutoModelForCausalLM.from_pretrained(folder, **options)


def unverified(folder: Path) -> Any:
    config = AutoConfig.from_pretrained(folder)
    config.quantization_config["verify"] = False
    return from_pretrained(folder, config=config)


@pytest.mark.parametrize("load", [load_model, from_pretrained])
def test_a_flipped_bit_of_the_weights_is_refused_and_loads_if_asked_to(
    packed: Path, tmp_path: Path, load: Callable[..., Any]
) -> None:
    folder = shutil.copytree(packed, tmp_path / "packed")
    flip(folder / "model.safetensors", 0.9)
    with pytest.raises(CheckpointError, match=r"model\.safetensors: its content differs .*verify=False") as error:
        load(folder)
    assert len(str(error.value).splitlines()) == 1
    assert load_model(folder, verify=False) is not None
    config = unverified(folder).config.quantization_config.to_dict()
    assert "verify" not in config


@pytest.mark.slow
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), share=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_any_flipped_bit_of_any_file_is_refused(
    packed: Path, tmp_path: Path, data: st.DataObject, share: float, bit: int
) -> None:
    names = sorted(json.loads((packed / "edgerazor.json").read_text())["files"].keys() - {"README.md"})
    folder = tmp_path / "packed"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(packed, folder)
    flip(folder / data.draw(st.sampled_from(names)), share, bit)
    with pytest.raises(EdgeRazorError):
        load_model(folder)


def test_a_card_may_be_edited(packed: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(packed, tmp_path / "packed")
    (folder / "README.md").write_text((folder / "README.md").read_text().swapcase())
    assert load_model(folder) is not None


@pytest.mark.parametrize("name", OLD)
def test_what_version_0_1_wrote_is_checked_by_its_own_hash(name: str, tmp_path: Path) -> None:
    folder = shutil.copytree(VERSION_0_1 / name / "packed", tmp_path / "packed")
    assert load_model(folder) is not None
    flip(folder / "model.safetensors", 0.9)
    with pytest.raises(CheckpointError, match=r"model\.safetensors: its content differs"):
        from_pretrained(folder)


def test_a_model_of_the_hub_is_checked_too(packed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    damaged = shutil.copytree(packed, tmp_path / "packed")
    flip(damaged / "model.safetensors", 0.9)
    offline_cache(tmp_path / "hub", monkeypatch)("us/damaged", "main", damaged)
    with pytest.raises(CheckpointError, match=r"model\.safetensors: its content differs"):
        from_pretrained("us/damaged")


def test_what_save_pretrained_writes_has_no_digests_and_loads(packed: Path, tmp_path: Path) -> None:
    from_pretrained(packed).save_pretrained(tmp_path / "saved")
    assert from_pretrained(tmp_path / "saved") is not None


def test_a_damaged_tensor_that_is_not_quantized_is_not_exported(
    packed: Path, tmp_path: Path, registry: Registry
) -> None:
    folder = shutil.copytree(packed, tmp_path / "packed")
    flip(folder / "model.safetensors", 0.9)
    with pytest.raises(CheckpointError, match=r"model\.safetensors: its content differs"):
        export_to(folder, "gguf", tmp_path / "model.gguf", registry=registry)
    assert not (tmp_path / "model.gguf").exists()
