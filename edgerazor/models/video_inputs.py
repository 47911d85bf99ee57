"""What a thinker of Qwen2.5-Omni is given of a video, made by its own image processor, tokenizer and chat template."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jinja2 import TemplateError
from numpy.typing import NDArray
from torch import Tensor
from transformers import AutoImageProcessor, ProcessorMixin, Qwen2_5OmniProcessor
from transformers.utils.chat_template_utils import render_jinja_template

from edgerazor.core.contracts.videos import VideoMessage
from edgerazor.errors import ExportError, first_line

_CHANNELS = 3
_FRAMES_PER_SECOND = 2.0  # as its processor takes it where nobody says


class VideoInputs:
    """Makes tensors of messages.

    Its processor makes videos into numbers by torchvision; here its image processor does so by Pillow, a frame at a
    time, and the frames of a patch are put behind each other. Bounds of a frame's size are those of its videos.

    Args:
        folder: of the model, or its hub name.
        config: of the thinker.
        tokenizer: of the model.

    Raises:
        ExportError: the folder holds no image processor, or no chat template.
    """

    def __init__(self, folder: str, config: Any, tokenizer: Any):
        self._folder, self._tokenizer = folder, tokenizer
        self._images: Any = self._load(AutoImageProcessor.from_pretrained, backend="pil")
        self._template = tokenizer.chat_template or self._load(_template_of_processor)
        if not self._template:
            raise ExportError(f"{folder}: has no chat template, by which a message shows a video")
        self._token = str(tokenizer.convert_ids_to_tokens(int(config.video_token_id)))

    def build(self, message: VideoMessage) -> dict[str, Tensor]:
        """Arguments of the thinker's forward pass, of one row.

        Raises:
            ExportError: the chat template refuses the message, or shows no video.
        """
        pixels, grid = self._pixels(message.frames, message.max_pixels)
        count = int(np.prod(grid)) // self._images.merge_size**2
        text = self._render(message)
        if text.count(self._token) != 1:
            raise ExportError(f"{self._folder}: its chat template shows no video, or the question names {self._token}")
        rendered = text.replace(self._token, self._token * count)
        ids = torch.tensor([self._tokenizer(rendered, add_special_tokens=False)["input_ids"]])
        seconds = len(message.frames) / _FRAMES_PER_SECOND if message.seconds is None else message.seconds
        return {
            "input_ids": ids,
            "attention_mask": torch.ones_like(ids),
            "pixel_values_videos": torch.from_numpy(pixels),
            "video_grid_thw": torch.tensor([grid]),
            "video_second_per_grid": torch.tensor([self._images.temporal_patch_size * seconds / len(message.frames)]),
        }

    def _pixels(self, frames: Sequence[NDArray[np.uint8]], most: int) -> tuple[NDArray[np.float32], list[int]]:
        """float32 `[patches, channels * frames of a patch * height * width]`, and patches in time, height and width.

        The last frame is repeated where the frames of a patch are not complete, as the model's processor does.
        """
        bounds = Qwen2_5OmniProcessor.videos_kwargs["size"]
        size = {"shortest_edge": min(bounds["shortest_edge"], most), "longest_edge": most}
        depth = self._images.temporal_patch_size
        whole = [*frames, *[frames[-1]] * (-len(frames) % depth)]
        try:
            found = self._images(images=whole, size=size, return_tensors="np")
        except ValueError as error:
            raise ExportError(f"{self._folder}: its image processor refuses a frame: {first_line(error)}") from error
        height, width = (int(value) for value in found["image_grid_thw"][0, 1:])
        # The image processor has each picture stand still for a whole patch: of the k-th one the k-th frame is taken.
        still = found["pixel_values"].reshape(len(whole) // depth, depth, height * width, _CHANNELS, depth, -1)
        moving = np.stack([still[:, index, :, :, index] for index in range(depth)], axis=3)
        return moving.reshape(-1, found["pixel_values"].shape[-1]), [len(whole) // depth, height, width]

    def _render(self, message: VideoMessage) -> str:
        content = [{"type": "video", "video": ""}, {"type": "text", "text": message.text}]
        system = [] if message.system is None else [{"role": "system", "content": _texts(message.system)}]
        try:
            texts, _ = render_jinja_template(
                [[*system, {"role": "user", "content": content}]],
                chat_template=self._template,
                add_generation_prompt=True,
                **self._tokenizer.special_tokens_map,
            )
        except (TemplateError, TypeError) as error:
            raise ExportError(f"{self._folder}: its chat template refuses a video: {first_line(error)}") from error
        return str(texts[0])

    def _load(self, loader: Any, **options: Any) -> Any:
        try:
            return loader(self._folder, **options)
        except Exception as error:  # a damaged file, or a package that is missing, may raise anything in there
            raise ExportError(
                f"{self._folder}: no usable image processor: {first_line(error)}; copy preprocessor_config.json and "
                "the chat template from the folder of the 16-bit model"
            ) from error


def _texts(text: str) -> list[dict[str, str]]:
    return [{"type": "text", "text": text}]


def _template_of_processor(folder: str) -> Any:
    """A processor's own template, which an older folder has in a file that tokenizers do not read."""
    found, _ = ProcessorMixin.get_processor_dict(folder)
    return found.get("chat_template")
