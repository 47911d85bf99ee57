"""What lies beside the graph: settings for onnxruntime-genai, tokenizer, configuration, and what made the folder."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgerazor.core.contracts import Checkpoint
from edgerazor.plugins.exporters.common import (
    CHAT_TEMPLATE,
    CHAT_TEMPLATES,
    TOKENIZER,
    TOKENIZER_CONFIG,
    read_json,
    write_json,
)
from edgerazor.plugins.exporters.onnx.plan import ONNXPlan
from edgerazor.plugins.exporters.params import ONNXParams
from edgerazor.plugins.exporters.token_ids import stated_ids, stop_ids
from edgerazor.version import __version__

MODEL, DATA, GENAI, CARD = "model.onnx", "model.onnx.data", "genai_config.json", "edgerazor_onnx.json"
# The card of version 0.1 had the name of a packed checkpoint's manifest.
FORMER_CARD = "edgerazor.json"
CONFIG, GENERATION = "config.json", "generation_config.json"
_COPIED = (
    GENERATION,
    TOKENIZER,
    TOKENIZER_CONFIG,
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    CHAT_TEMPLATE,
)
FILES = frozenset({MODEL, DATA, GENAI, CARD, FORMER_CARD, CONFIG, CHAT_TEMPLATES, *_COPIED})
# The buffer of keys and values is made for so many tokens at once.
_LONGEST = 4096


def write_companions(folder: Path, checkpoint: Checkpoint, plan: ONNXPlan, params: ONNXParams) -> None:
    """Everything but the graph."""
    config = {key: value for key, value in checkpoint.config.items() if key != "quantization_config"}
    write_json(folder / CONFIG, config)
    for name in copied_files(checkpoint.folder):
        (folder / name).parent.mkdir(exist_ok=True)
        shutil.copyfile(checkpoint.folder / name, folder / name)
    generation = read_json(checkpoint.folder / GENERATION, optional=True)
    stops = stop_ids(checkpoint.folder, plan.facts.vocab)
    write_json(folder / GENAI, _genai(config, generation, stops, plan, portable=params.portable))
    card = {
        "version": __version__,
        "content_sha256": checkpoint.digest,
        "recipe": dict(checkpoint.recipe),
        "context_length": plan.context_length,
        "settings": params.model_dump(exclude={"name", "path"}),
    }
    write_json(folder / CARD, card)


def copied_files(folder: Path) -> list[str]:
    """Names of the files of a checkpoint that lie unchanged beside the graph: those of generation and tokenizer."""
    templates = sorted((folder / CHAT_TEMPLATES).glob("*.jinja"))
    return [
        *(name for name in _COPIED if (folder / name).is_file()),
        *(f"{CHAT_TEMPLATES}/{path.name}" for path in templates),
    ]


def read_card(folder: Path) -> dict[str, Any]:
    """What made a folder: version, recipe, settings; of folders that version 0.1 wrote, too.

    Raises:
        ExportError: it is absent or damaged.
    """
    former = folder / FORMER_CARD
    return read_json(former if former.is_file() and not (folder / CARD).is_file() else folder / CARD)


def _genai(
    config: Mapping[str, Any], generation: Mapping[str, Any], stops: list[int], plan: ONNXPlan, *, portable: bool
) -> dict[str, Any]:
    facts, fallback = plan.facts, stops[0] if stops else 0
    bos, pad = (
        next((number for part in (generation, config) for number in stated_ids(part, name, facts.vocab)), fallback)
        for name in ("bos", "pad")
    )
    decoder = {
        "filename": MODEL,
        "head_size": facts.head_dim,
        "hidden_size": facts.hidden,
        "num_attention_heads": facts.heads,
        "num_key_value_heads": facts.kv_heads,
        "num_hidden_layers": facts.layers,
        "session_options": {"provider_options": []},
        "inputs": {
            "input_ids": "input_ids",
            "attention_mask": "attention_mask",
            "past_key_names": "past_key_values.%d.key",
            "past_value_names": "past_key_values.%d.value",
        },
        "outputs": {
            "logits": "logits",
            "present_key_names": "present.%d.key",
            "present_value_names": "present.%d.value",
        },
    }
    model = {
        "type": facts.genai or str(config.get("model_type")),
        "vocab_size": facts.vocab,
        "context_length": plan.context_length,
        "bos_token_id": bos,
        "eos_token_id": stops if len(stops) > 1 else fallback,
        "pad_token_id": pad,
        "decoder": decoder,
    }
    search = {
        "max_length": min(plan.context_length, _LONGEST),
        "past_present_share_buffer": not portable,
        "do_sample": False,
        "top_k": 50,
        "top_p": 1.0,
        "temperature": 1.0,
        "num_beams": 1,
    }
    return {"model": model, "search": search}
