"""Scikit-learn's handwritten digits as pictures on the disk, and a small ViT and ResNet that learn them in minutes."""

import json
import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from transformers import ResNetConfig, ViTConfig, ViTImageProcessorPil

from edgerazor.core.atomic import write_text
from edgerazor.core.registry import Registry
from edgerazor.data.images import Classes, ImageCollator, load_images
from edgerazor.models.types import auto_class
from edgerazor.schemas.data import DataSection

CLASSES, HELD_OUT, SPLIT_SEED = 10, 597, 0
SIDE = 16
# A picture that is not cropped is made numbers once, which halves the time of a step; teachers need the crops.
MIXUP = 0.2
AUGMENTATION = {"crop": 0.6, "mixup": MIXUP}
EPOCHS, ROWS, RATE = 60, 32, 2e-3


def config_of(family: str) -> Any:
    """The configuration of a teacher, so small that few bits are felt: wider ones lose nothing at 3 bits, rounded."""
    shared = {"num_channels": 1, "num_labels": CLASSES}
    if family == "vit":
        sizes = {"hidden_size": 32, "num_hidden_layers": 4, "num_attention_heads": 2, "intermediate_size": 128}
        return ViTConfig(**shared, **sizes, image_size=SIDE, patch_size=4)
    return ResNetConfig(**shared, embedding_size=16, hidden_sizes=[16, 32], depths=[1, 1], layer_type="basic")


def write_pictures(folder: Path) -> dict[str, Path]:
    """The 1797 digits as PNG files by class, 1200 to learn from and 597 held out; returns the folders of both.

    The split is random, by a fixed seed, and the same for everything that is measured.
    """
    from sklearn.datasets import load_digits

    parts = {"training": folder / "training", "held_out": folder / "held_out"}
    done = folder / "written.json"
    if not done.exists():
        digits = load_digits()
        order = np.random.default_rng(SPLIT_SEED).permutation(len(digits.images))
        shutil.rmtree(folder, ignore_errors=True)
        for place, number in enumerate(order):
            part = parts["held_out" if place < HELD_OUT else "training"] / str(int(digits.target[number]))
            part.mkdir(parents=True, exist_ok=True)
            grey = np.round(digits.images[number] * (255 / 16)).astype(np.uint8)
            Image.fromarray(grey).save(part / f"{number:04}.png")
        write_text(done, json.dumps({"pictures": len(order), "held_out": HELD_OUT}) + "\n")
    return parts


def data_section(pictures: dict[str, Path], seed: int, augmentation: dict[str, float]) -> dict[str, Any]:
    """The `data` of a recipe."""
    return {
        "task": "image_classification",
        "sources": [{"path": str(pictures["training"])}],
        "held_out": [{"path": str(pictures["held_out"])}],
        "images": augmentation,
        "seed": seed,
    }


def make_teacher(family: str, folder: Path, pictures: dict[str, Path], registry: Registry) -> Path:
    """Train a teacher by cross entropy, AdamW and a cosine, on one thread, and save it; one that is there is kept."""
    if (folder / "trained.json").exists():
        return folder
    config = config_of(family)
    config.label2id = {str(number): number for number in range(CLASSES)}
    config.id2label = {number: str(number) for number in range(CLASSES)}
    processor = ViTImageProcessorPil(
        size={"height": SIDE, "width": SIDE}, resample=Image.Resampling.BICUBIC, image_mean=[0.5], image_std=[0.5]
    )
    section = DataSection.model_validate(data_section(pictures, 0, AUGMENTATION))
    rows = load_images(section, processor, classes=Classes(config.label2id), channels=1).train
    torch.manual_seed(0)
    model: Any = auto_class(config).from_config(config)
    collate = ImageCollator(registry.adapter_for(family).facts(config).context, mixup=MIXUP)
    started = time.perf_counter()
    _train(model, rows, collate)
    model.eval().save_pretrained(folder)
    processor.save_pretrained(folder)
    facts = {"epochs": EPOCHS, "seconds": time.perf_counter() - started}
    write_text(folder / "trained.json", json.dumps(facts) + "\n")
    return folder


def _train(model: Any, rows: Any, collate: ImageCollator) -> None:
    loader = torch.utils.data.DataLoader(rows, ROWS, shuffle=True, drop_last=True, collate_fn=collate)
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=EPOCHS * len(loader), pct_start=0.1)
    model.train()
    for epoch in range(EPOCHS):
        rows.set_epoch(epoch)
        for batch in loader:
            logits = model(pixel_values=batch["pixel_values"]).logits.log_softmax(-1)
            loss = -(logits.gather(1, batch["labels"]) * batch["label_shares"]).sum(-1).mean()
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
