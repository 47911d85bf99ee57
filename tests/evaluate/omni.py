"""A tiny random thinker of Qwen2.5-Omni in a folder, with its processor's files, and frames drawn for a test."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from transformers import Qwen2_5OmniThinkerForConditionalGeneration

from tests.adapters.omni_cases import omni_config, processor

TEMPLATE = (
    "{% for message in messages %}<{{ message.role }}>{% for part in message.content %}{% if part.type == 'video' %}"
    "<|vision_bos|><|VIDEO|><|vision_eos|>{% else %}{{ part.text }}{% endif %}{% endfor %}{{ '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)
CONTEXT = 2048


def save_thinker(folder: Path, *, seed: int = 0) -> Path:
    """The model in 16 bit with tokenizer, chat template and image processor."""
    config = omni_config().thinker_config
    config.text_config.max_position_embeddings = CONTEXT
    torch.manual_seed(seed)
    model: Any = Qwen2_5OmniThinkerForConditionalGeneration(config)
    model.to(torch.bfloat16).save_pretrained(folder)
    own = processor()
    own.tokenizer.chat_template = TEMPLATE
    own.tokenizer.save_pretrained(folder)
    own.image_processor.save_pretrained(folder)
    return folder


def draw_frames(count: int, *, height: int = 24, width: int = 32, seed: int = 0) -> list[NDArray[np.uint8]]:
    """A bright bar that moves from left to right over noise, uint8 `[height, width, 3]` each."""
    random = np.random.default_rng(seed)
    frames = random.integers(0, 80, (count, height, width, 3), dtype=np.uint8)
    for index, frame in enumerate(frames):
        start = index * width // count
        frame[:, start : start + 4] = 255
    return list(frames)


def save_frames(folder: Path, frames: list[NDArray[np.uint8]]) -> Path:
    """As numbered pictures without loss."""
    folder.mkdir(parents=True)
    for index, frame in enumerate(frames):
        Image.fromarray(frame).save(folder / f"frame_{index}.png")
    return folder
