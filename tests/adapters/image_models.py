"""Image classifiers at small random size."""

from typing import Any

from transformers import DeiTConfig, ResNetConfig, ViTConfig

_ENCODER = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "image_size": 8,
    "patch_size": 4,
    "num_channels": 1,
    "num_labels": 5,
}
_STAGES = {"num_channels": 1, "embedding_size": 8, "hidden_sizes": [8, 16], "depths": [2, 1], "num_labels": 5}


IMAGE_FAMILIES = {"vit": "vit", "deit": "deit", "resnet": "resnet", "resnet-bottleneck": "resnet"}


def image_config(name: str, **changes: Any) -> Any:
    """The configuration of a small model of a family."""
    kinds: dict[str, tuple[Any, dict[str, Any]]] = {
        "vit": (ViTConfig, _ENCODER),
        "deit": (DeiTConfig, _ENCODER | {"architectures": ["DeiTForImageClassification"]}),
        "resnet": (ResNetConfig, _STAGES | {"layer_type": "basic"}),
        "resnet-bottleneck": (ResNetConfig, _STAGES | {"layer_type": "bottleneck"}),
    }
    kind, values = kinds[name]
    return kind(**(values | changes))
