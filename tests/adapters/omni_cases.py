"""A thinker of Qwen2.5-Omni at small random size, and batches as its own processor makes them."""

from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast, Qwen2_5OmniConfig, Qwen2_5OmniProcessor, WhisperFeatureExtractor
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

SPECIAL = {
    "image_token": "<|IMAGE|>",
    "audio_token": "<|AUDIO|>",
    "video_token": "<|VIDEO|>",
    "vision_bos_token": "<|vision_bos|>",
    "vision_eos_token": "<|vision_eos|>",
    "audio_bos_token": "<|audio_bos|>",
    "audio_eos_token": "<|audio_eos|>",
}
PAD, LETTERS = "<|pad|>", 256
FIRST = LETTERS + 1
IDS = {name: FIRST + index for index, name in enumerate(SPECIAL)}
VOCABULARY = 288
VISION = {"patch_size": 4, "temporal_patch_size": 2, "spatial_merge_size": 2}
MELS = 16


def omni_config() -> Qwen2_5OmniConfig:
    """The whole model's configuration; head_dim 16 in every tower, so that only the right attention is quantized."""
    text = {
        "vocab_size": VOCABULARY,
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "initializer_range": 0.2,
        "max_position_embeddings": 256,
        "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 3, 3]},
    }
    vision = {
        "depth": 2,
        "hidden_size": 64,
        "intermediate_size": 60,  # no multiple of 32, as in the published model
        "num_heads": 4,
        "out_hidden_size": 64,
        "window_size": 16,
        "fullatt_block_indexes": [1],
        "in_channels": 3,
        **VISION,
    }
    audio = {
        "d_model": 32,
        "encoder_layers": 1,
        "encoder_attention_heads": 2,
        "encoder_ffn_dim": 64,
        "num_mel_bins": MELS,
        "max_source_positions": 50,
        "n_window": 10,
        "output_dim": 64,
    }
    thinker = {
        "text_config": text,
        "vision_config": vision,
        "audio_config": audio,
        "audio_token_index": IDS["audio_token"],
        "image_token_index": IDS["image_token"],
        "video_token_index": IDS["video_token"],
        "vision_start_token_id": IDS["vision_bos_token"],
        "vision_end_token_id": IDS["vision_eos_token"],
        "audio_start_token_id": IDS["audio_bos_token"],
        "audio_end_token_id": IDS["audio_eos_token"],
        "pad_token_id": LETTERS,
    }
    return Qwen2_5OmniConfig(thinker_config=thinker, enable_audio_output=False)


class WithoutVideos(Qwen2_5OmniProcessor):
    """The model's own processor where torchvision is absent, which its part for videos needs."""

    def check_argument_for_proper_class(self, argument_name: str, argument: Any) -> Any:
        if argument_name == "video_processor":
            return None
        return super().check_argument_for_proper_class(argument_name, argument)


def processor() -> Qwen2_5OmniProcessor:
    """The model's own processor, built from parts of its own kind at small size."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    backend = Tokenizer(models.BPE(vocab={letter: index for index, letter in enumerate(letters)}, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, pad_token=PAD, padding_side="left", extra_special_tokens=SPECIAL
    )
    images = Qwen2VLImageProcessorPil(
        patch_size=VISION["patch_size"],
        temporal_patch_size=VISION["temporal_patch_size"],
        merge_size=VISION["spatial_merge_size"],
        size={"shortest_edge": 256, "longest_edge": 4096},
    )
    sounds = WhisperFeatureExtractor(feature_size=MELS, sampling_rate=16000, chunk_length=1)
    return WithoutVideos(image_processor=images, video_processor=None, feature_extractor=sounds, tokenizer=tokenizer)


def batches() -> dict[str, dict[str, Any]]:
    """One batch per kind of input, two rows each; the video is in the shapes that its processor gives."""
    made, random = processor(), np.random.RandomState(0)
    picture = random.randint(0, 255, (16, 24, 3), dtype=np.uint8)
    sound = random.randn(8000).astype("float32")
    options = {"return_tensors": "pt", "padding": True}
    image_text = "see <|vision_bos|><|IMAGE|><|vision_eos|> it"
    result = {
        "text": made(text=["a few words", "and some more of them"], **options),
        "image": made(text=[image_text, "no image here, but text"], images=[picture], **options),
        "audio": made(
            text=["hear <|audio_bos|><|AUDIO|><|audio_eos|> it", "silence, and text"], audio=[sound], **options
        ),
    }
    frames = torch.from_numpy(random.randn(2 * 24, result["image"]["pixel_values"].shape[1]).astype("float32"))
    tokens = SPECIAL["video_token"] * (len(frames) // VISION["spatial_merge_size"] ** 2)
    text = made.tokenizer([f"watch <|vision_bos|>{tokens}<|vision_eos|> it", "no video here"], **options)
    result["video"] = {
        **text,
        "pixel_values_videos": frames,
        "video_grid_thw": torch.tensor([[2, *result["image"]["image_grid_thw"][0, 1:].tolist()]]),
        "video_second_per_grid": torch.tensor([1.0]),
    }
    return {kind: {**batch, "labels": _labels(batch)} for kind, batch in result.items()}


def _labels(batch: Any) -> torch.Tensor:
    hidden = (batch["attention_mask"] == 0) | (batch["input_ids"] >= FIRST)
    return batch["input_ids"].masked_fill(hidden, -100)
