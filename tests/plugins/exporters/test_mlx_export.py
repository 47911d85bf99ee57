"""Exported folders: equal in every preset, read by mlx_lm, shards, dtypes, damage."""

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gguf_cases import BODIES, CASES, Packed, byte_level_tokenizer, pack_case, rules
from mlx_cases import make_mlx

pytest.importorskip("mlx_lm")

from safetensors.torch import load_file, save_file

from edgerazor.checkpoint import open_checkpoint
from edgerazor.core.registry import Registry
from edgerazor.core.tensor import QuantizedTensor
from edgerazor.errors import ExportError
from edgerazor.inference.open_runtime import open_runtime
from edgerazor.plugins.exporters.mlx import write
from edgerazor.plugins.exporters.mlx.engine import load_model, mx
from tests.commands import fail, succeed

pytestmark = [pytest.mark.mlx, pytest.mark.slow]
ONE_LAYER: dict[str, Any] = {"num_hidden_layers": 1, "weights": rules(BODIES["1.88"], 32)}


@pytest.fixture(scope="module")
def folder(registry: Registry, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A packed Qwen3 of one layer with a chat template."""
    template = "{% for message in messages %}<{{ message.content }}>{% endfor %}"
    return pack_case(
        tmp_path_factory.mktemp("case"), registry, tokenizer=byte_level_tokenizer(template=template), **ONE_LAYER
    )


@pytest.mark.parametrize("case", CASES)
def test_every_weight_is_equal_in_the_model_that_mlx_lm_makes(
    case: str, packed: Packed, registry: Registry, tmp_path: Path
) -> None:
    """Read by the layers of the engine, not by the code of `verify`."""
    checkpoint, path = packed(case), tmp_path / "out"
    make_mlx(registry, path).export(checkpoint, path)
    result = make_mlx(registry, path).verify(path, checkpoint)
    assert result.different == () and result.tensors == len(list(checkpoint.names()))
    layers = dict(load_model(path)[0].named_modules())
    for name in checkpoint.names():
        value, layer = checkpoint.read(name), layers[name.rpartition(".")[0]]
        if isinstance(value, QuantizedTensor):
            found = mx.dequantize(layer.weight, layer.scales, layer.biases, layer.group_size, layer.bits)
            assert np.array_equal(np.array(found), value.dequantize().numpy())
        else:
            assert np.array_equal(np.array(layer[name.rpartition(".")[2]]), value.float().numpy())


def test_matrices_that_stay_float_are_named(packed: Packed, registry: Registry, tmp_path: Path) -> None:
    path = tmp_path / "out"
    make_mlx(registry, path).export(packed("llama half quantized"), path)
    config = json.loads((path / "config.json").read_text())
    settings = config["quantization"]
    assert settings == config["quantization_config"]
    assert settings["model.layers.0.mlp.up_proj"] == {"group_size": 64, "bits": 2}
    assert settings["model.embed_tokens"] is False and settings["model.layers.1.self_attn.q_proj"] is False
    assert "model.norm" not in settings
    assert (settings["group_size"], settings["bits"], settings["mode"]) == (64, 2, "affine")


def test_commands_take_the_folder(folder: Path, tmp_path: Path) -> None:
    """export, verify, generate and evaluate, by the name of the folder alone."""
    path = tmp_path / "out"
    said = succeed("export", folder, "--to", "mlx", "--output", path)
    assert "mix rows of two widths" in said and "mlx_lm 0." in said
    assert "equal" in succeed("verify", path, "--against", folder)
    asked = ["--prompt", "the", "--max-new-tokens", 8]
    assert succeed("generate", path, *asked) == succeed("generate", folder, *asked)
    texts = tmp_path / "texts.jsonl"
    texts.write_text('{"text": "the cat in the hat and the rest of it"}\n' * 4)
    ours, theirs = (succeed("evaluate", model, "--data", texts).splitlines() for model in (path, folder))
    same = [line for line in ours if "tokens_per_second" not in line]
    assert "loss: " in same[0] and same == [line for line in theirs if "tokens_per_second" not in line]


def test_a_folder_in_shards_is_equal(
    folder: Path, registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, writer = tmp_path / "out", write.ShardWriter
    monkeypatch.setattr(write, "ShardWriter", lambda *arguments: writer(*arguments, shard_bytes=100_000))
    make_mlx(registry, path).export(open_checkpoint(folder), path)
    assert len(list(path.glob("model-*-of-*.safetensors"))) > 3
    assert make_mlx(registry, path).verify(path, open_checkpoint(folder)).different == ()
    runtime = open_runtime(path, registry=registry)
    assert runtime.feed([1, 2, 3]).shape == (1, 320)
    runtime.close()


def test_float16_is_verified_and_runs(folder: Path, registry: Registry, tmp_path: Path) -> None:
    exact, half = tmp_path / "exact", tmp_path / "half"
    succeed("export", folder, "--to", "mlx", "--output", exact)
    said = succeed("export", folder, "--to", "mlx", "--output", half, "--set", "dtype=float16")
    assert "MLX computes scale * q + bias in float16: ternary weights are exact" in " ".join(said.split())
    assert "equal" in succeed("verify", half, "--against", folder)
    logits = []
    for path in (exact, half):
        runtime = open_runtime(path, registry=registry)
        logits.append(runtime.feed([5, 6, 7], every=True))
        runtime.close()
    assert 0 < np.linalg.norm(logits[0] - logits[1]) < 0.02 * np.linalg.norm(logits[0])


def test_what_a_narrow_dtype_does_not_hold_is_refused_by_name(folder: Path, tmp_path: Path) -> None:
    said = fail("export", folder, "--to", "mlx", "--output", tmp_path / "out", "--set", "dtype=bfloat16")
    lines = [line for line in said.splitlines() if "scales are no bfloat16 numbers; set dtype to float32" in line]
    assert len(lines) == 8 and "model.embed_tokens: " in lines[0]
    assert not (tmp_path / "out").exists()


def test_scales_that_bfloat16_holds_are_exported_in_it(registry: Registry, tmp_path: Path) -> None:
    """Ternary weights are exact in MLX's own arithmetic there."""
    quantizer = {"name": "ternary", "group_size": 128, "scale_dtype": "float16_bfloat16"}
    values = {"num_hidden_layers": 1, "weights": [{"match": "*", "quantizer": quantizer}]}
    checkpoint = open_checkpoint(pack_case(tmp_path, registry, **values))
    path = tmp_path / "out"
    exporter = make_mlx(registry, path, dtype="bfloat16")
    exporter.export(checkpoint, path)
    assert exporter.verify(path, checkpoint).different == ()
    layer = dict(load_model(path)[0].named_modules())["model.layers.0.mlp.up_proj"]
    found = mx.dequantize(layer.weight, layer.scales, layer.biases, layer.group_size, layer.bits)
    expected = checkpoint.read("model.layers.0.mlp.up_proj.weight").dequantize()  # type: ignore[union-attr]
    assert found.dtype == mx.bfloat16 and np.array_equal(np.array(found.astype(mx.float32)), expected.numpy())


def test_biases_that_float16_does_not_hold_are_refused(registry: Registry, tmp_path: Path) -> None:
    def enlarge(model: Any) -> None:
        model.model.layers[0].mlp.up_proj.weight.mul_(2e6)

    large = {"num_hidden_layers": 1, "weights": rules(BODIES["4"], 32), "change": enlarge}
    checkpoint = open_checkpoint(pack_case(tmp_path, registry, **large))
    make_mlx(registry, tmp_path / "out").check(checkpoint)
    with pytest.raises(ExportError, match=r"^model\.layers\.0\.mlp\.up_proj: a bias of \d+ does not fit float16; set"):
        make_mlx(registry, tmp_path / "out", dtype="float16").check(checkpoint)


def changed_config(path: Path, **values: Any) -> None:
    content = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps({**content, **values}))


def cut_off(path: Path) -> None:
    file = path / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])


def without_a_tensor(path: Path) -> None:
    tensors = load_file(path / "model.safetensors")
    del tensors["model.layers.0.mlp.up_proj.scales"]
    save_file(tensors, path / "model.safetensors")


def with_another_tensor(path: Path) -> None:
    save_file({"stray": torch.zeros(2)}, path / "model-00002-of-00002.safetensors")


DAMAGE: dict[str, tuple[Any, str]] = {
    "cut off": (cut_off, "model.safetensors: cannot be read"),
    "no weights": (lambda path: (path / "model.safetensors").unlink(), "there is no model.safetensors"),
    "no configuration": (lambda path: (path / "config.json").unlink(), "config.json"),
    "a configuration that is none": (lambda path: (path / "config.json").write_text("[1"), "config.json"),
    "a card that is none": (lambda path: (path / "edgerazor_mlx.json").write_text("{"), "edgerazor_mlx.json"),
    "no settings": (lambda path: changed_config(path, quantization=4), "config.json: quantization is missing"),
    "a tensor less": (without_a_tensor, "model.layers.0.mlp.up_proj.weight"),
    "a tensor more": (with_another_tensor, "stray"),
    "another base": (lambda path: changed_config(path, rope_theta=1.0), "config.json: rope_theta"),
    "other settings": (lambda path: changed_config(path, quantization={}), "config.json: quantization"),
    "another tokenizer": (lambda path: (path / "tokenizer.json").write_text("{}"), "tokenizer.json"),
}


@pytest.mark.parametrize("case", DAMAGE)
def test_damage_is_one_message(case: str, folder: Path, registry: Registry, tmp_path: Path) -> None:
    damage, expected = DAMAGE[case]
    path = tmp_path / "out"
    make_mlx(registry, path).export(open_checkpoint(folder), path)
    damage(path)
    said = fail("verify", path, "--against", folder)
    assert expected in said


@pytest.mark.parametrize("case", ["cut off", "no weights", "no configuration", "a card that is none", "a tensor less"])
def test_a_damaged_folder_is_not_run(case: str, folder: Path, registry: Registry, tmp_path: Path) -> None:
    path = tmp_path / "out"
    make_mlx(registry, path).export(open_checkpoint(folder), path)
    DAMAGE[case][0](path)
    with pytest.raises(ExportError, match=r"^[^\n]+$"):
        open_runtime(path, registry=registry).close()


@pytest.mark.subprocess
def test_mlx_leaves_process_and_temporary_folder_as_they_were(folder: Path, registry: Registry, tmp_path: Path) -> None:
    """MLX compiles operations into libraries in a temporary folder that others can write to; here it does not."""
    path = tmp_path / "out"
    make_mlx(registry, path).export(open_checkpoint(folder), path)
    code = (
        "import os, resource\n"
        "before = dict(os.environ), resource.getrlimit(resource.RLIMIT_NOFILE)[0]\n"
        "from edgerazor.plugins.exporters.mlx.runtime import MLXRuntime\n"
        f"MLXRuntime({str(path)!r}).feed([1, 2, 3])\n"
        "assert before == (dict(os.environ), resource.getrlimit(resource.RLIMIT_NOFILE)[0])\n"
    )
    environment = {name: value for name, value in os.environ.items() if name != "MLX_DISABLE_COMPILE"}
    (tmp_path / "temporary").mkdir()
    done = subprocess.run(
        ["bash", "-c", f"ulimit -Sn 1000; exec {sys.executable} -c {shlex.quote(code)}"],
        env={**environment, "TMPDIR": str(tmp_path / "temporary")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert not (tmp_path / "temporary" / "mlx").exists()
