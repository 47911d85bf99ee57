"""Special tokens and chat templates as keys of the format: what surrounds a text, ends it, or writes a message."""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from edgerazor.plugins.exporters.common import CHAT_TEMPLATE, CHAT_TEMPLATES
from edgerazor.plugins.exporters.token_ids import stated_ids, token_text

STOP_IDS = "edgerazor.stop_token_ids"
TEMPLATE = "tokenizer.chat_template"
_KEY = "tokenizer.ggml.{}_token_id"
_NAMES = {"bos": "bos", "eos": "eos", "unk": "unknown", "pad": "padding"}
EOS = _KEY.format("eos")
_END_OF_MESSAGE = "<|eom_id|>"
# Tokens that llama.cpp takes for the end of a text by their names, whatever the file says of them.
_ENDS_BY_NAME = frozenset(
    (
        *("<|eot_id|>", "<|im_end|>", "<|end|>", "<|return|>", "<|call|>", "<|flush|>", "<|calls|>", "<end_of_turn>"),
        *("<|endoftext|>", "</s>", "<|eom_id|>", "<EOT>", "_<EOT>", "[EOT]", "[EOS]", "<|end_of_text|>", "<eos>"),
        *("<end_of_utterance>", "<turn|>", "<|tool_response>", "<\uff5cend\u2581of\u2581sentence\uff5c>"),
        *("<|fim_pad|>", "<fim-pad>", "<fim_pad>", "<PAD>", "[PAD]", "<|fim_repo|>", "<|repo_name|>", "<fim-repo>"),
        *("<REPO>", "<reponame>", "<|file_sep|>"),
    )
)


def special_ids(
    settings: Mapping[str, Any], config: Mapping[str, Any], numbers: Mapping[str, int], rows: int
) -> dict[str, int]:
    """Numbers of the special tokens that tokenizer_config.json names, else config.json: `{"bos": 1, ...}`."""
    found = {}
    for name in _NAMES:
        text = token_text(settings, name)
        known = stated_ids(config, name, rows) if text is None else [numbers[text]] if text in numbers else []
        if known:
            found[name] = known[0]
    return found


def special_keys(
    special: Mapping[str, int], stops: list[int], tokens: list[str], controls: Collection[int]
) -> dict[str, Any]:
    """Keys of special tokens, and of all that end a text.

    llama.cpp stops at the tokens of the keys eos, eot and eom, and at others whose names it knows, of whatever type
    they are. A list of all is for this package's runtime, where eos does not say it or another token could be taken
    for an end.

    Args:
        special: `{"bos": 1, ...}`.
        stops: tokens that end a text.
        tokens: texts of all tokens.
        controls: numbers of all control tokens.
    """
    keys: dict[str, Any] = {_KEY.format(_NAMES[name]): number for name, number in special.items()}
    further = [number for number in stops if number != special.get("eos")]
    if "eos" not in special and further:
        keys[EOS] = further.pop(0)
    message = next((number for number in further if tokens[number] == _END_OF_MESSAGE), None)
    further = [number for number in further if number != message]
    keys |= {_KEY.format(name): number for name, number in zip(("eot", "eom"), further, strict=False)}
    if message is not None:
        keys[_KEY.format("eom")] = message
    others = {number for number, text in enumerate(tokens) if text in _ENDS_BY_NAME} | set(controls)
    if stops and (stops != [special.get("eos")] or others - set(special.values())):
        keys[STOP_IDS] = stops
    return keys


def surrounding_keys(content: Mapping[str, Any], special: Mapping[str, str]) -> tuple[dict[str, Any], list[str]]:
    """Which special tokens are put around a text, from the post-processor; and a line for what has no key.

    Args:
        content: of tokenizer.json.
        special: `{text of a special token: its name}`.
    """
    before, after, unknown = _surroundings(content.get("post_processor"))
    keys: dict[str, Any] = {"tokenizer.ggml.add_bos_token": bool(before)}
    if after:
        keys["tokenizer.ggml.add_eos_token"] = True
    begin, end = ([special.get(text) for text in texts] for texts in (before, after))
    if begin in ([], ["bos"]) and end in ([], ["eos"]) and not unknown:
        return keys, []
    around = [*before, *after, *unknown]
    return keys, [f"tokenizer.json: the post-processor puts {around} around texts; known: bos and eos"]


def _surroundings(processor: Any) -> tuple[list[str], list[str], list[str]]:
    before: list[str] = []
    after: list[str] = []
    unknown: list[str] = []
    for step in (processor or {}).get("processors", [processor] if processor else []):
        if step["type"] == "TemplateProcessing":
            target = before
            for part in step["single"]:
                if "Sequence" in part:
                    target = after
                else:
                    target.append(part["SpecialToken"]["id"])
        elif step["type"] != "ByteLevel":
            unknown.append(step["type"])
    return before, after, unknown


def template_keys(folder: Path, settings: Mapping[str, Any]) -> dict[str, Any]:
    """The chat template, and those with names of their own, of files or of tokenizer_config.json."""
    stated = settings.get("chat_template")
    named = {"default": stated} if isinstance(stated, str) else {}
    if isinstance(stated, list):
        named = {entry["name"]: entry["template"] for entry in stated}
    files = {"default": folder / CHAT_TEMPLATE}
    files |= {path.stem: path for path in sorted((folder / CHAT_TEMPLATES).glob("*.jinja"))}
    named |= {name: path.read_text(encoding="utf-8") for name, path in files.items() if path.exists()}
    default = named.pop("default", None)
    keys: dict[str, Any] = {TEMPLATE: default} if default else {}
    keys |= {f"{TEMPLATE}.{name}": template for name, template in named.items()}
    return {**keys, "tokenizer.chat_templates": list(named)} if named else keys
