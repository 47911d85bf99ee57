"""Whole files: what gguf's own reader finds in them equals the checkpoint, for every family, width and group size."""

import json
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from gguf_cases import (
    BODIES,
    CASES,
    PROFILES,
    Packed,
    byte_level_tokenizer,
    expected_rows,
    make,
    pack_case,
    rules,
    stored_heads,
)

from edgerazor import __version__
from edgerazor.checkpoint import PackedCheckpoint, open_checkpoint
from edgerazor.core.registry import Registry
from edgerazor.plugins.exporters.gguf.architectures import tensor_name
from edgerazor.plugins.exporters.gguf.read import open_gguf

pytestmark = pytest.mark.slow


def export(registry: Registry, checkpoint: PackedCheckpoint, path: Path, **settings: Any) -> Any:
    """Check, export, verify; the report."""
    exporter = make(registry, path, **settings)
    exporter.check(checkpoint)
    assert not path.exists()
    report = exporter.export(checkpoint, path)
    verified = exporter.verify(path, checkpoint)
    assert verified.different == () and verified.tensors > 10
    assert report.bytes == path.stat().st_size and list(path.parent.glob(".*")) == []
    return report


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_the_gguf_package_reads_what_the_checkpoint_holds(
    case: str, registry: Registry, packed: Packed, tmp_path: Path
) -> None:
    checkpoint = packed(case)
    # The size profile of the 64-column case uses a type that this reader does not know.
    profile = "compatible" if "1.58-bit g64" in case or "half" in case else PROFILES[list(CASES).index(case) % 3]
    export(registry, checkpoint, tmp_path / "model.gguf", profile=profile)
    reader = gguf.GGUFReader(tmp_path / "model.gguf")
    found = {tensor.name: tensor for tensor in reader.tensors}
    names = [name for name in checkpoint.names() if name not in checkpoint.tied]
    assert len(found) == len(names)
    for name in names:
        stored = found[tensor_name(checkpoint.role(name), checkpoint.facts.gguf)]
        values = gguf.dequantize(stored.data, stored.tensor_type)
        assert np.array_equal(values, expected_rows(checkpoint, name, stored_heads(case, name)).numpy()), name


@pytest.mark.parametrize("profile", PROFILES)
def test_a_profile_chooses_by_width(profile: str, registry: Registry, packed: Packed, tmp_path: Path) -> None:
    ternary, int4 = {"size": ("TQ1_0", "Q4_0"), "speed_cpu": ("Q2_K", "Q4_K"), "compatible": ("Q2_K", "Q4_0")}[profile]
    export(registry, packed("qwen3 1.58-bit g256 tied"), tmp_path / "a.gguf", profile=profile)
    types = {name: tensor.decoder.name for name, tensor in open_gguf(tmp_path / "a.gguf").tensors.items()}
    assert types["token_embd.weight"] == int4 and types["blk.1.ffn_down.weight"] == ternary
    assert types["blk.0.attn_norm.weight"] == "F32" and "output.weight" not in types


def test_types_by_group_size_and_rule(registry: Registry, packed: Packed, tmp_path: Path) -> None:
    export(registry, packed("llama 1.58-bit g64 untied"), tmp_path / "a.gguf", profile="size")
    types = {name: tensor.decoder.name for name, tensor in open_gguf(tmp_path / "a.gguf").tensors.items()}
    assert types["blk.0.attn_q.weight"] == "Q2_0" and types["output.weight"] == "Q4_0"
    chosen = [{"match": "*.down_proj", "type": "TQ2_0"}, {"match": ["*.mlp.*", "*.o_proj"], "type": "Q8_0"}]
    export(registry, packed("qwen3 1.58-bit g256 tied"), tmp_path / "b.gguf", types=chosen)
    types = {name: tensor.decoder.name for name, tensor in open_gguf(tmp_path / "b.gguf").tensors.items()}
    assert types["blk.1.ffn_down.weight"] == "TQ2_0" and types["blk.1.ffn_up.weight"] == "Q8_0"
    assert types["blk.0.attn_output.weight"] == "Q8_0" and types["blk.0.attn_q.weight"] == "Q2_K"


def test_keys(registry: Registry, packed: Packed, tmp_path: Path) -> None:
    checkpoint = packed("llama 1.58-bit g64 untied")
    export(registry, checkpoint, tmp_path / "a.gguf")
    keys = open_gguf(tmp_path / "a.gguf").metadata
    assert keys["general.architecture"] == "llama" and keys["general.quantization_version"] == 2
    assert keys["llama.rope.dimension_count"] == keys["llama.attention.key_length"] == 64
    assert keys["llama.attention.head_count"] == 5 and keys["llama.attention.head_count_kv"] == 1
    assert keys["llama.attention.layer_norm_rms_epsilon"] == np.float32(1e-5)
    assert keys["llama.rope.freq_base"] == 10000.0 and keys["llama.context_length"] == 128
    assert keys["edgerazor.version"] == __version__ and keys["edgerazor.content_sha256"] == checkpoint.digest
    assert json.loads(keys["edgerazor.recipe"]) == checkpoint.recipe
    export(registry, packed("qwen3 1.58-bit g256 tied"), tmp_path / "b.gguf")
    keys = open_gguf(tmp_path / "b.gguf").metadata
    assert keys["qwen3.attention.value_length"] == 64 and "qwen3.rope.dimension_count" not in keys
    assert keys["general.file_type"] == 10


def test_the_report_tells_sizes_and_bits(registry: Registry, packed: Packed, tmp_path: Path) -> None:
    checkpoint = packed("qwen3 1.58-bit g256 tied")
    report = export(registry, checkpoint, tmp_path / "a.gguf", profile="size")
    types = report.details["types"]
    assert types["TQ1_0"]["bits_per_weight"] == 1.6875 == report.details["body_bits"]
    assert types["Q4_0"]["bits_per_weight"] == 4.5 and types["TQ1_0"]["tensors"] == 14
    quantized = types["TQ1_0"]["weights"] + types["Q4_0"]["weights"]
    bits = (1.6875 * types["TQ1_0"]["weights"] + 4.5 * types["Q4_0"]["weights"]) / quantized
    assert report.bits_per_weight == pytest.approx(bits)
    assert report.details["compression"] == 2 * report.details["parameters"] / report.bytes
    parameters = json.loads((checkpoint.folder / "edgerazor.json").read_text())["parameters"]
    assert report.details["parameters"] == parameters and report.details["tied"]
    assert "CPU, Vulkan" in types["TQ1_0"]["backends"]


@pytest.mark.parametrize(
    ("case", "nominal", "preset"),
    [("llama 1.88-bit g32 tied", "1.88", "1.88-bit-tensor"), ("qwen3 2.79-bit g64 tied", "2.79", "2.79-bit-tensor")],
)
def test_mixed_rows_are_widened_and_said_so(
    case: str, nominal: str, preset: str, registry: Registry, packed: Packed, tmp_path: Path
) -> None:
    last = export(registry, packed(case), tmp_path / "a.gguf").details["notes"][-1]
    assert f"nominal {nominal} bits, in this file 4.50: GGUF stores one type per tensor" in last and preset in last


def test_what_is_not_quantized_keeps_its_dtype(registry: Registry, packed: Packed, tmp_path: Path) -> None:
    report = export(registry, packed("llama half quantized"), tmp_path / "a.gguf")
    types = {name: tensor.decoder.name for name, tensor in open_gguf(tmp_path / "a.gguf").tensors.items()}
    assert types["blk.0.attn_q.weight"] == types["token_embd.weight"] == "BF16"
    assert types["blk.0.ffn_up.weight"] == "Q4_0" and types["output_norm.weight"] == "F32"
    assert "model.layers.0.self_attn.q_proj.weight" in report.details["unquantized"]
    assert "model.embed_tokens was not quantized and stays bfloat16" in report.details["notes"]


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_other_float_dtypes(dtype: torch.dtype, registry: Registry, tmp_path: Path) -> None:
    weights = [{"match": "*.mlp.*", "quantizer": {"name": "ternary", "group_size": 64}}]
    folder = pack_case(tmp_path, registry, weights=weights, dtype=dtype, num_hidden_layers=1)
    export(registry, open_checkpoint(folder), tmp_path / "out" / "a.gguf")
    stored = open_gguf(tmp_path / "out" / "a.gguf").tensors["token_embd.weight"].decoder.name
    assert stored == {torch.float16: "F16", torch.float32: "F32"}[dtype]


def test_a_head_that_equals_the_embedding_is_written_once(registry: Registry, tmp_path: Path) -> None:
    """Whatever the configuration says; and one that differs is written."""

    def tie(model: Any) -> None:
        model.lm_head.weight.copy_(model.model.embed_tokens.weight)

    untied: dict[str, Any] = {"tie_word_embeddings": False, "num_hidden_layers": 1, "change": tie}
    folder = pack_case(tmp_path / "a", registry, weights=rules(BODIES["4"], 32), **untied)
    assert "lm_head.weight" in set(open_checkpoint(folder).names())
    report = export(registry, open_checkpoint(folder), tmp_path / "a" / "a.gguf")
    assert report.details["tied"] and "output.weight" not in open_gguf(tmp_path / "a" / "a.gguf").tensors
    folder = pack_case(tmp_path / "b", registry, **{**untied, "change": None})
    assert not export(registry, open_checkpoint(folder), tmp_path / "b" / "a.gguf").details["tied"]


def test_progress_and_one_reading_for_check_export_and_verify(
    registry: Registry, packed: Packed, tmp_path: Path
) -> None:
    exporter, seen = make(registry, tmp_path / "a.gguf"), list[tuple[str, int, int]]()
    exporter.progress = lambda stage, done, total: seen.append((stage, done, total))
    checkpoint = packed("qwen3 4-bit g32 tied")
    exporter.check(checkpoint)
    exporter.export(checkpoint, tmp_path / "a.gguf")
    exporter.verify(tmp_path / "a.gguf", checkpoint)
    assert list(dict.fromkeys(stage for stage, _, _ in seen)) == ["checking", "writing", "verifying"]
    for stage in ("checking", "writing", "verifying"):
        steps = [(done, total) for name, done, total in seen if name == stage]
        assert steps == [(index + 1, len(steps)) for index in range(len(steps))]


def test_an_export_over_an_old_file_and_through_a_link(registry: Registry, packed: Packed, tmp_path: Path) -> None:
    checkpoint = packed("qwen3 4-bit g32 tied")
    export(registry, checkpoint, tmp_path / "real.gguf")
    first = (tmp_path / "real.gguf").read_bytes()
    (tmp_path / "link.gguf").symlink_to(tmp_path / "real.gguf")
    make(registry, tmp_path / "link.gguf", profile="speed_cpu").export(checkpoint, tmp_path / "link.gguf")
    assert (tmp_path / "link.gguf").is_symlink() and (tmp_path / "real.gguf").read_bytes()[:4] == first[:4]


def test_chat_template_and_padding_of_the_token_list(registry: Registry, tmp_path: Path) -> None:
    tokenizer = byte_level_tokenizer(qwen=True, template="{{ messages[0].content }}")
    folder = pack_case(tmp_path, registry, tokenizer=tokenizer, num_hidden_layers=1, eos_token_id=None)
    report = export(registry, open_checkpoint(folder), tmp_path / "out" / "a.gguf")
    keys = open_gguf(tmp_path / "out" / "a.gguf").metadata
    assert keys["tokenizer.chat_template"] == "{{ messages[0].content }}" and keys["tokenizer.ggml.pre"] == "qwen2"
    tokens, types = keys["tokenizer.ggml.tokens"], keys["tokenizer.ggml.token_type"]
    assert len(tokens) == len(types) == 320 and tokens[-1] == "[PAD 319]" and types[-1] == 5
    assert tokens[keys["tokenizer.ggml.eos_token_id"]] == "<|end|>" and types[tokens.index("<|end|>")] == 3
    assert types[tokens.index("<tool>")] == 4 and keys["tokenizer.ggml.add_bos_token"] is False
    assert any("NFC" in note for note in report.details["notes"])
