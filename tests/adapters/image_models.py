"""Image classifiers at small random size."""

from typing import Any

from transformers import BeitConfig, DeiTConfig, ResNetConfig, ViTConfig

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


IMAGE_FAMILIES = {
    "vit": "vit",
    "deit": "deit",
    "beit": "beit",
    "beit-absolute": "beit",
    "resnet": "resnet",
    "resnet-bottleneck": "resnet",
}
_ABSOLUTE = {
    "use_absolute_position_embeddings": True,
    "use_shared_relative_position_bias": True,
    "use_mean_pooling": False,
    "layer_scale_init_value": 0.0,
}


def image_config(name: str, **changes: Any) -> Any:
    """The configuration of a small model of a family."""
    kinds: dict[str, tuple[Any, dict[str, Any]]] = {
        "vit": (ViTConfig, _ENCODER),
        "deit": (DeiTConfig, _ENCODER | {"architectures": ["DeiTForImageClassification"]}),
        "beit": (BeitConfig, _ENCODER | {"use_relative_position_bias": True}),
        "beit-absolute": (BeitConfig, _ENCODER | _ABSOLUTE),
        "resnet": (ResNetConfig, _STAGES | {"layer_type": "basic"}),
        "resnet-bottleneck": (ResNetConfig, _STAGES | {"layer_type": "bottleneck"}),
    }
    kind, values = kinds[name]
    return kind(**(values | changes))
