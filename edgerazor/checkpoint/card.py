"""The model card of a checkpoint: how to load it comes first, because without the package it does not load."""

from edgerazor.checkpoint.manifest import Manifest
from edgerazor.core.plan import Plan

_TEMPLATE = """\
# {title}

```python
import edgerazor.hf  # registers the packed format; without it loading stops with a shape error
from transformers import {auto_model}, {auto_processor}

model = {auto_model}.from_pretrained("path/to/this/folder")
{processor} = {auto_processor}.from_pretrained("path/to/this/folder")
```

{base} after quantization-aware training or rounding with edgerazor {version}.
Weights are stored as integer codes with one float16 scale per group; no file holds them a second time.

| | |
|---|---|
| parameters | {parameters:,} ({coverage:.2%} quantized) |
| bits per quantized weight | {nominal:.3f} codes, {effective:.3f} with scales, {file:.3f} in the file |
| inputs of linear layers | {activations} |
| keys and values | {kv_cache} |
| content sha256 | `{digest}` |
{evaluation}
People without the package can use an export to another format (`edgerazor export`): the same codes and scales.
"""


_OF_TEXTS = ("AutoModelForCausalLM", "AutoTokenizer", "tokenizer")
_OF_IMAGES = ("AutoModelForImageClassification", "AutoImageProcessor", "processor")


def model_card(manifest: Manifest, plan: Plan, *, images: bool = False) -> str:
    """The text of README.md; `images`: the model classifies pictures."""
    auto_model, auto_processor, processor = _OF_IMAGES if images else _OF_TEXTS
    bits, base = manifest.bits_per_weight, manifest.base_model["name_or_path"] or "a 16-bit model"
    figures = {key: value for key, value in (manifest.evaluation or {}).items() if isinstance(value, (int, float))}
    rows = "".join(f"| {key} | {value:.6g} |\n" for key, value in figures.items())
    return _TEMPLATE.format(
        auto_model=auto_model,
        auto_processor=auto_processor,
        processor=processor,
        title=f"{base.rstrip('/').rpartition('/')[2]} at {bits.nominal:.2f} bits",
        base=base,
        version=manifest.edgerazor_version,
        parameters=manifest.parameters,
        coverage=plan.coverage,
        nominal=bits.nominal,
        effective=bits.effective,
        file=bits.file,
        activations=plan.activations.summary() if plan.activations else "not quantized",
        kv_cache=plan.kv_cache.summary() if plan.kv_cache else "not quantized",
        digest=manifest.content_sha256,
        evaluation=f"\n| held-out data | |\n|---|---|\n{rows}" if rows else "",
    )
