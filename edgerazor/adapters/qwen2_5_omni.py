"""Qwen2.5-Omni: its thinker reads text, images, audio and video; text and vision are quantized, audio is not."""

import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, ClassVar

from torch import nn

from edgerazor.adapters.config_facts import config_values
from edgerazor.adapters.decoder import DecoderAdapter
from edgerazor.core.contracts import GGUFArchitecture, ModelFacts, TensorRole

_OUTSIDE = re.compile(r"(^|\.)(audio_tower|talker|token2wav)\.")
_TOWERS = ("model.visual.", "model.audio_tower.")
_VISION = re.compile(r"(^|\.)visual\.")
# 3420 columns in the published model, of which no multiple of 32 is a divisor.
_EXCLUDED = re.compile(r"(^|\.)visual\.blocks\.\d+\.mlp\.down_proj$")


class Qwen25OmniAdapter(DecoderAdapter):
    """The thinker, alone or inside the whole model; batches as its processor makes them."""

    inputs: ClassVar[tuple[str, ...]] = (
        *DecoderAdapter.inputs,
        "pixel_values",
        "pixel_values_videos",
        "image_grid_thw",
        "video_grid_thw",
        "video_second_per_grid",
        "input_features",
        "feature_attention_mask",
        "use_audio_in_video",
    )

    def facts(self, config: Any) -> ModelFacts:
        """Those of the language model; queries, keys and values have biases, whatever the configuration says."""
        values = config_values(config)
        stated = super().facts(values.get("thinker_config", values))
        biases = frozenset(("q", "k", "v"))
        return replace(stated, biases=biases, towers=_TOWERS, gguf=GGUFArchitecture("qwen2vl", biases=biases))

    def quantizable(self, model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
        """Linear layers and embeddings of the language model and of the visual tower, less the published exclusions."""
        for name, module in super().quantizable(model):
            if self.why_left_out(name) is None:
                yield name, module

    def why_left_out(self, name: str) -> str | None:
        """Why a matrix is never quantized, for the notes of a plan; None if it may be."""
        if _OUTSIDE.search(name):
            return "audio parts are never quantized"
        if _EXCLUDED.search(name):
            return "left out as published: 3420 columns are no multiple of 32"
        return None

    def role(self, parameter_name: str) -> TensorRole:
        """As for other decoders; everything of the visual and audio towers is `other`."""
        if _OUTSIDE.search(parameter_name) or _VISION.search(parameter_name):
            return TensorRole("other")
        return super().role(parameter_name)
