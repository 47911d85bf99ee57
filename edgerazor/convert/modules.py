"""Names of the modules that the original's patterns may meet, beside the names they have here.

The original selects modules by regular expressions, a recipe by globs. Whether a glob says the same is decided on these
names, so a translation is proven or refused, never guessed.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

Kind = Literal["linear", "embedding"]
# More layers than any published model has; what is true of these is true of fewer.
LAYERS = 128
VISION_BLOCKS = 64
EMBEDDING, HEAD = "embedding", "head"


@dataclass(frozen=True)
class OldModule:
    """A module of a model.

    Attributes:
        name: as the original's patterns see it.
        ours: as rules see it; None if no rule can take it here.
        kind: its type.
        part: "embedding", "head" or "body".
    """

    name: str
    ours: str | None
    kind: Kind = "linear"
    part: str = "body"


_ATTENTION = [f"self_attn.{leaf}_proj" for leaf in "qkvo"]
_MLP = [f"mlp.{leaf}_proj" for leaf in ("gate", "up", "down")]
_FUSED = {"gate_proj": "gate_up_proj", "up_proj": "gate_up_proj", "down_proj": "down_proj"}


def decoder() -> list[OldModule]:
    """A dense decoder: Qwen3, Qwen2, Llama, MobileLLM."""
    return [
        OldModule("model.embed_tokens", "model.embed_tokens", "embedding", EMBEDDING),
        *(OldModule(name, name) for name in _layers("model", [*_ATTENTION, *_MLP])),
        OldModule("lm_head", "lm_head", part=HEAD),
    ]


def mixture() -> list[OldModule]:
    """A Qwen3 mixture of experts: one linear layer per expert there, two parameters for all experts here."""
    modules = decoder()
    for layer in range(LAYERS):
        where = f"model.layers.{layer}.mlp"
        modules.append(OldModule(f"{where}.gate", None))
        for expert in range(2):
            modules += [
                OldModule(f"{where}.experts.{expert}.{leaf}", f"{where}.experts.{ours}")
                for leaf, ours in _FUSED.items()
            ]
    return modules


def omni() -> list[OldModule]:
    """Qwen2.5-Omni: its thinker's language model and visual tower; audio, talker and token2wav are never quantized."""
    language, ours = "thinker.model", "model.language_model"
    modules = [
        OldModule(f"{language}.embed_tokens", f"{ours}.embed_tokens", "embedding", EMBEDDING),
        OldModule("thinker.lm_head", "lm_head", part=HEAD),
    ]
    for name in _layers(language, [*_ATTENTION, *_MLP]):
        modules.append(OldModule(name, ours + name.removeprefix(language)))
    for block in range(VISION_BLOCKS):
        where = f"visual.blocks.{block}"
        for leaf in ("attn.q", "attn.k", "attn.v", "attn.proj", "mlp.gate_proj", "mlp.up_proj"):
            modules.append(OldModule(f"thinker.{where}.{leaf}", f"model.{where}.{leaf}"))
        modules.append(OldModule(f"thinker.{where}.mlp.down_proj", None))
    modules += [OldModule(f"thinker.visual.merger.mlp.{index}", f"model.visual.merger.mlp.{index}") for index in (0, 2)]
    return [*modules, *(OldModule(name, None) for name in _never_here())]


def _never_here() -> Iterable[str]:
    yield from ("thinker.audio_tower.proj", "thinker.audio_tower.layers.0.fc1")
    yield from ("talker.thinker_to_talker_proj", "talker.model.layers.0.self_attn.q_proj")
    yield from ("token2wav.code2wav_dit_model.proj_out", "token2wav.code2wav_dit_model.transformer_blocks.0.attn.to_q")


def _layers(stem: str, leaves: list[str]) -> Iterator[str]:
    for layer in range(LAYERS):
        for leaf in leaves:
            yield f"{stem}.layers.{layer}.{leaf}"
