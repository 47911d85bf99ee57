"""What lies beside the graph: settings for onnxruntime-genai, tokenizer, configuration, and what made the folder."""

import json
import os
import secrets
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from edgerazor import __version__
from edgerazor.core.contracts import Checkpoint
from edgerazor.errors import ExportError
from edgerazor.plugins.exporters.onnx.plan import ExportPlan
from edgerazor.plugins.exporters.params import ONNXParams

MODEL, DATA, GENAI, CARD = "model.onnx", "model.onnx.data", "genai_config.json", "edgerazor.json"
CONFIG, GENERATION = "config.json", "generation_config.json"
COPIED = (
    GENERATION,
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "chat_template.jinja",
)
# The buffer of keys and values is made for so many tokens at once.
_LONGEST = 4096
_GENAI_TYPES = {"qwen3": "qwen3", "qwen2": "qwen2", "llama": "llama", "mistral": "mistral", "mobilellm": "llama"}


@contextmanager
def replaced_folder(path: Path) -> Iterator[Path]:
    """Give an empty folder beside `path`; once the block ends well it takes its place, else nothing of it is left.

    Raises:
        ExportError: `path` is something that is not ours, or cannot be written (a full disk, for example).
    """
    target = path.resolve()
    temporary = target.with_name(f".{target.name}.partial-{secrets.token_hex(4)}")
    try:
        _check_replaceable(path, target)
        temporary.mkdir(parents=True)
        yield temporary
        for written in temporary.iterdir():
            _sync(written)
        _sync(temporary)
        _put_in_place(temporary, target)
        _sync(target.parent)
    except OSError as error:
        raise ExportError(f"{path}: cannot be written: {error.strerror or error}") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _check_replaceable(path: Path, target: Path) -> None:
    above = next((one for one in target.parents if one.exists() and not one.is_dir()), None)
    if above is not None:
        raise ExportError(f"{path}: cannot be written: {above} is a file, not a folder")
    if target.is_file():
        raise ExportError(f"{path}: is a file; expected a folder, or a name that is free")
    present = {one.name for one in target.iterdir()} if target.is_dir() else set()
    foreign = sorted(present - {MODEL, DATA, GENAI, CARD, CONFIG, *COPIED})
    if (present and GENAI not in present) or foreign:
        shown = ", ".join((foreign or sorted(present))[:5])
        raise ExportError(f"{path}: holds what is no exported model ({shown}); choose another folder, or empty it")


def _put_in_place(temporary: Path, target: Path) -> None:
    if not target.exists():
        temporary.rename(target)
        return
    old = target.with_name(f"{temporary.name}.old")
    target.rename(old)
    try:
        temporary.rename(target)
    except BaseException:
        old.rename(target)
        raise
    shutil.rmtree(old, ignore_errors=True)


def write_companions(folder: Path, checkpoint: Checkpoint, plan: ExportPlan, params: ONNXParams) -> None:
    """Everything but the graph."""
    config = {key: value for key, value in checkpoint.config.items() if key != "quantization_config"}
    _write(folder / CONFIG, config)
    for name in COPIED:
        if (checkpoint.folder / name).is_file():
            shutil.copyfile(checkpoint.folder / name, folder / name)
    generation = _read(checkpoint.folder / GENERATION)
    _write(folder / GENAI, _genai(config, generation, plan, portable=params.portable))
    card = {
        "version": __version__,
        "content_sha256": checkpoint.digest,
        "recipe": dict(checkpoint.recipe),
        "context_length": plan.context_length,
        "settings": params.model_dump(exclude={"name", "path"}),
    }
    _write(folder / CARD, card)


def read_json(path: Path) -> dict[str, Any]:
    """Keys and values of a file.

    Raises:
        ExportError: it is absent or damaged.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ExportError(f"{path}: there is no such file") from error
    except (OSError, ValueError) as error:
        raise ExportError(f"{path}: cannot be read: {error}") from error
    if not isinstance(content, dict):
        raise ExportError(f"{path}: expected keys with values")
    return content


def _genai(
    config: Mapping[str, Any], generation: Mapping[str, Any], plan: ExportPlan, *, portable: bool
) -> dict[str, Any]:
    special = {
        name: generation.get(name, config.get(name)) for name in ("bos_token_id", "eos_token_id", "pad_token_id")
    }
    eos = special["eos_token_id"]
    first = eos[0] if isinstance(eos, list) and eos else eos
    fallback = 0 if first is None else first
    known = {name: fallback if value is None else value for name, value in special.items()}
    width = config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]
    decoder = {
        "filename": MODEL,
        "head_size": width,
        "hidden_size": config["hidden_size"],
        "num_attention_heads": config["num_attention_heads"],
        "num_key_value_heads": config.get("num_key_value_heads", config["num_attention_heads"]),
        "num_hidden_layers": config["num_hidden_layers"],
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
        "type": _GENAI_TYPES.get(str(config.get("model_type")), str(config.get("model_type"))),
        "vocab_size": config["vocab_size"],
        "context_length": plan.context_length,
        **known,
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


def _read(path: Path) -> dict[str, Any]:
    return read_json(path) if path.is_file() else {}


def _write(path: Path, content: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
