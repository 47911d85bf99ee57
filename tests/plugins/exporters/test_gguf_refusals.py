"""What cannot be held exactly is refused before a byte is written, and a failure leaves nothing behind."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from gguf_cases import BODIES, Packed, make, pack_case, rules, seal

from edgerazor.checkpoint import open_checkpoint
from edgerazor.core.registry import Registry
from edgerazor.errors import CheckpointError, ExportError
from tests.limits import quota
from tests.packed_cases import edit_json, edit_tensors

pytestmark = pytest.mark.slow

Refuse = Callable[..., list[str]]


@pytest.fixture
def refuse(registry: Registry, tmp_path: Path) -> Refuse:
    """`refuse(checkpoint, **settings)`: the lines of the refusal; check and export refuse alike and write nothing."""

    def run(checkpoint: Any, **settings: Any) -> list[str]:
        exporter = make(registry, tmp_path / "out" / "a.gguf", **settings)
        with pytest.raises(ExportError) as caught:
            exporter.check(checkpoint)
        with pytest.raises(ExportError) as again:
            exporter.export(checkpoint, tmp_path / "out" / "a.gguf")
        assert str(again.value) == str(caught.value) and not (tmp_path / "out").exists()
        return str(caught.value).splitlines()

    return run


@pytest.fixture
def copied(packed: Packed, tmp_path: Path) -> Callable[[str], Path]:
    """A copy of a checkpoint that a test may change."""

    def copy(case: str) -> Path:
        folder = tmp_path / "copy"
        shutil.copytree(packed(case).folder, folder)
        return folder

    return copy


def test_every_tensor_that_does_not_fit_is_listed(refuse: Refuse, packed: Packed) -> None:
    rule = {"match": "*.down_proj", "type": "TQ1_0"}
    lines = refuse(packed("qwen3 1.88-bit g128 untied"), types=[rule, {"match": "*.dwn_proj", "type": "Q4_0"}])
    assert lines == [
        "types[1] match '*.dwn_proj' fits no tensor; did you mean '*.down_proj'?",
        "model.layers.0.mlp.down_proj: type TQ1_0 needs 256-value groups, this tensor has group_size 128; "
        "Q4_0 would fit",
        "model.layers.1.mlp.down_proj: type TQ1_0 needs 256-value groups, this tensor has group_size 128; "
        "Q4_0 would fit",
    ]


def test_columns_and_codes_that_do_not_fit(refuse: Refuse, packed: Packed) -> None:
    lines = refuse(packed("llama 1.58-bit g64 untied"), types=[{"match": "*.q_proj", "type": "TQ2_0"}])
    assert lines[0] == (
        "model.layers.0.self_attn.q_proj: 320 columns are not a multiple of 256 (TQ2_0); Q2_0 and Q4_0 would fit"
    )
    lines = refuse(packed("qwen3 asymmetric g256 untied"), types=[{"match": "*.v_proj", "type": "Q2_K"}])
    assert lines[0] == (
        "model.layers.0.self_attn.v_proj: type Q2_K holds codes -1..2, this tensor has -8..7; Q4_0 and Q4_K would fit"
    )


def test_a_rule_behind_others_is_an_error(refuse: Refuse, packed: Packed) -> None:
    both = [{"match": "*.mlp.*", "type": "Q4_0"}, {"match": "*.up_proj", "type": "Q8_0"}]
    assert refuse(packed("qwen3 4-bit g32 tied"), types=both) == [
        "types[1]: all tensors it matches are taken by earlier rules; the first match wins"
    ]


def test_mixed_rows_can_be_refused(refuse: Refuse, packed: Packed) -> None:
    assert refuse(packed("llama 1.88-bit g32 tied"), mixed_rows="error") == [
        "14 tensors mix ternary and int4 rows and mixed_rows is 'error'; set 'widen' (4.50 bits) or train preset "
        "1.88-bit-tensor"
    ]


def test_a_group_size_that_fits_no_block(refuse: Refuse, registry: Registry, tmp_path: Path) -> None:
    sizes = {"hidden_size": 192, "num_attention_heads": 3, "num_key_value_heads": 1, "intermediate_size": 384}
    folder = pack_case(tmp_path, registry, weights=rules(BODIES["4"], 48), num_hidden_layers=1, **sizes)
    lines = refuse(open_checkpoint(folder))
    assert len(lines) == 8
    assert lines[0] == ("model.embed_tokens: group_size 48 fits no GGUF block (32, 64, 256); train with 32 or 64")
    assert any("mlp.down_proj" in line and line.endswith("train with 32, 64 or 128") for line in lines)


def test_columns_below_any_block(refuse: Refuse, registry: Registry, tmp_path: Path) -> None:
    weights = [{"match": "*", "quantizer": {"name": "ternary"}}]
    folder = pack_case(tmp_path, registry, weights=weights, num_hidden_layers=1, intermediate_size=80)
    assert refuse(open_checkpoint(folder)) == [
        "model.layers.0.mlp.down_proj: 80 columns are not a multiple of 32, the smallest GGUF block"
    ]


def test_scales_outside_float16_are_refused(refuse: Refuse, copied: Callable[[str], Path]) -> None:
    folder = copied("qwen3 4-bit g32 tied")

    def spoil(tensors: dict[str, torch.Tensor]) -> None:
        scale = tensors["model.embed_tokens.weight_scale"]
        scale[0, :3], scale[1, :2] = 2.0**-15, float("inf")

    edit_tensors(folder, spoil)
    seal(folder)
    assert refuse(open_checkpoint(folder)) == [
        "model.embed_tokens: 3 scales lie below 2**-14 (subnormal in the file); 2 are not finite"
    ]


def test_negative_scales_and_empty_groups_are_exact(
    registry: Registry, copied: Callable[[str], Path], tmp_path: Path
) -> None:
    folder = copied("qwen3 1.58-bit g256 tied")

    def change(tensors: dict[str, torch.Tensor]) -> None:
        for name, tensor in tensors.items():
            if name.endswith("weight_scale"):
                tensor[::2] *= -1
                tensor[1::3] = 0

    edit_tensors(folder, change)
    seal(folder)
    for profile in ("size", "speed_cpu"):
        exporter = make(registry, tmp_path / "a.gguf", profile=profile)
        exporter.export(open_checkpoint(folder), tmp_path / "a.gguf")
        assert exporter.verify(tmp_path / "a.gguf", open_checkpoint(folder)).different == ()


def test_a_damaged_checkpoint_is_refused(refuse: Refuse, copied: Callable[[str], Path]) -> None:
    folder = copied("qwen3 4-bit g32 tied")
    edit_tensors(folder, lambda tensors: tensors["model.layers.0.mlp.up_proj.weight_i4"][0].add_(1), rehash=False)
    assert "the checkpoint is damaged" in refuse(open_checkpoint(folder))[0]
    (folder / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes()[:-64])
    with pytest.raises(CheckpointError):
        open_checkpoint(folder)


def test_nan_in_a_norm_is_refused(refuse: Refuse, copied: Callable[[str], Path]) -> None:
    folder = copied("qwen3 4-bit g32 tied")
    edit_tensors(folder, lambda tensors: tensors["model.norm.weight"][:1].fill_(float("nan")))
    assert refuse(open_checkpoint(folder)) == ["model.norm: holds NaN or infinite values"]


CONFIGS: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "windows in all layers": (
        lambda config: config.update(model_type="mistral", sliding_window=64),
        "window 64 on layers 0, 1: llama.cpp has none for this architecture; set context_length to 64",
    ),
    "rope": (
        lambda config: config["rope_parameters"].update(rope_type="dynamic", factor=2.0),
        "rope_type 'dynamic' is not supported; expected default or linear or yarn",
    ),
    "sharing": (
        lambda config: config.update(model_type="mobilellm", layer_sharing=True),
        "every layer runs 2 times; a GGUF would hold every shared layer more than once",
    ),
    "activation": (
        lambda config: config.update(hidden_act="gelu"),
        "activation gelu is not supported; expected silu",
    ),
    "window": (
        lambda config: config.update(
            use_sliding_window=True, sliding_window=64, layer_types=["full_attention", "sliding_attention"]
        ),
        "window 64 on layer 1: llama.cpp has none for this architecture; set context_length to 64",
    ),
    "missing": (lambda config: config.pop("rms_norm_eps"), "config.json: rms_norm_eps is missing"),
    "vocabulary": (
        lambda config: config.update(vocab_size=321),
        "the embedding has 320 rows, config.json says vocab_size 321",
    ),
    "layers": (
        lambda config: config.update(num_hidden_layers=3),
        "the checkpoint has no tensor for blk.2.attn_norm.weight, blk.2.attn_q.weight, blk.2.attn_k.weight, "
        "blk.2.attn_v.weight, blk.2.attn_output.weight and 6 more",
    ),
    "tie": (
        lambda config: config.update(tie_word_embeddings=False),
        "there is no output head, and config.json does not say tie_word_embeddings",
    ),
}


LLAMA_LIKE = ("sharing", "windows in all layers")


@pytest.mark.parametrize("what", CONFIGS)
def test_a_model_that_the_format_cannot_describe(what: str, refuse: Refuse, copied: Callable[[str], Path]) -> None:
    edit, expected = CONFIGS[what]
    folder = copied("llama 4-bit g128 tied" if what in LLAMA_LIKE else "qwen3 4-bit g32 tied")
    edit_json(folder / "config.json", edit)
    assert refuse(open_checkpoint(folder)) == [expected]


def test_a_tensor_without_a_place_is_refused(refuse: Refuse, registry: Registry, tmp_path: Path) -> None:
    folder = pack_case(tmp_path, registry, attention_bias=True, num_hidden_layers=1)
    lines = refuse(open_checkpoint(folder))
    assert "model.layers.0.self_attn.q_proj.bias: has no place in a GGUF of architecture qwen3" in lines


def test_a_checkpoint_without_tokenizer_is_refused(refuse: Refuse, copied: Callable[[str], Path]) -> None:
    folder = copied("qwen3 4-bit g32 tied")
    (folder / "tokenizer.json").unlink()
    edit_json(folder / "edgerazor.json", lambda content: content["files"].pop("tokenizer.json"))
    assert refuse(open_checkpoint(folder)) == [
        "tokenizer.json is missing in the checkpoint; a GGUF needs the tokenizer"
    ]


@pytest.mark.parametrize("size", [1000, 100_000])
def test_a_full_disk_leaves_the_old_file(size: int, registry: Registry, packed: Packed, tmp_path: Path) -> None:
    """Once the header does not fit, once the tensors do not."""
    checkpoint, path = packed("qwen3 4-bit g32 tied"), tmp_path / "a.gguf"
    exporter = make(registry, path)
    exporter.export(checkpoint, path)
    before = path.read_bytes()
    with quota(size), pytest.raises(ExportError, match=r"a\.gguf: cannot be written: File too large"):
        exporter.export(checkpoint, path)
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]


def test_an_interrupt_leaves_nothing(registry: Registry, packed: Packed, tmp_path: Path) -> None:
    exporter = make(registry, tmp_path / "a.gguf")

    def interrupt(stage: str, done: int, total: int) -> None:
        if stage == "writing" and done == 5:
            raise KeyboardInterrupt

    exporter.progress = interrupt
    with pytest.raises(KeyboardInterrupt):
        exporter.export(packed("qwen3 4-bit g32 tied"), tmp_path / "a.gguf")
    assert list(tmp_path.iterdir()) == []


def test_what_is_no_gguf_is_not_overwritten(registry: Registry, packed: Packed, tmp_path: Path) -> None:
    exporter, checkpoint = make(registry, tmp_path), packed("qwen3 4-bit g32 tied")
    with pytest.raises(ExportError, match="is a folder"):
        exporter.export(checkpoint, tmp_path)
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ExportError, match="is there already and is no GGUF file"):
        exporter.export(checkpoint, tmp_path / "notes.txt")
    with pytest.raises(ExportError, match=r"notes\.txt: is a file; expected a folder"):
        exporter.export(checkpoint, tmp_path / "notes.txt" / "a.gguf")
    assert (tmp_path / "notes.txt").read_text() == "mine" and len(list(tmp_path.iterdir())) == 1
