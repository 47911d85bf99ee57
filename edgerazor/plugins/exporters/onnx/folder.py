"""What lies beside the graph: settings for onnxruntime-genai, tokenizer, configuration, and what made the folder."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgerazor.core.contracts import Checkpoint
from edgerazor.plugins.exporters import hugging_face
from edgerazor.plugins.exporters.common import read_json, write_json
from edgerazor.plugins.exporters.hugging_face import COMPANIONS, GENERATION, describe_card, exported_config
from edgerazor.plugins.exporters.onnx.plan import ONNXPlan
from edgerazor.plugins.exporters.params import ONNXParams
from edgerazor.plugins.exporters.token_ids import stated_ids, stop_ids

MODEL, DATA, GENAI, CARD = "model.onnx", "model.onnx.data", "genai_config.json", "edgerazor_onnx.json"
# The card of version 0.1 had the name of a packed checkpoint's manifest.
FORMER_CARD = "edgerazor.json"
FILES = frozenset({MODEL, DATA, GENAI, CARD, FORMER_CARD, *COMPANIONS})
# The buffer of keys and values is made for so many tokens at once.
_LONGEST = 4096


def write_companions(folder: Path, checkpoint: Checkpoint, plan: ONNXPlan, params: ONNXParams) -> None:
    """Everything but the graph."""
    config = exported_config(checkpoint, {})
    hugging_face.write_companions(folder, checkpoint, {})
    if plan.facts.image:
        write_json(folder / CARD, {**describe_card(checkpoint, params), "classes": plan.facts.vocab})
        return
    generation = read_json(checkpoint.folder / GENERATION, optional=True)
    stops = stop_ids(checkpoint.folder, plan.facts.vocab)
    write_json(folder / GENAI, _genai(config, generation, stops, plan, portable=params.portable))
    write_json(folder / CARD, {**describe_card(checkpoint, params), "context_length": plan.context_length})


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
