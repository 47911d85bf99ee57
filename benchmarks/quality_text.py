"""Text that the teacher writes, for contestants that learn from it (docs/design/METHOD.md, section 7)."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from edgerazor.core.atomic import write_text
from edgerazor.core.discovery import load_plugins
from edgerazor.models.load import Models, pick_device
from edgerazor.schemas.model import ModelSection

LONGEST_PROMPT = 32
ROWS_AT_ONCE = 64
SAMPLING = {"do_sample": True, "temperature": 0.7, "top_p": 0.95, "top_k": 20}


@torch.no_grad()
def write_teacher_text(teacher: Path, documents: Sequence[str], path: Path, rows: int, length: int) -> Path:
    """Write `rows` texts of `length` tokens that go on from the beginnings of documents; what is there is kept.

    Beginnings are 32 tokens, or a quarter of the length, from places in the documents that are drawn once.
    """
    if path.exists() and len(path.read_text(encoding="utf-8").splitlines()) >= rows:
        return path
    prompt = min(LONGEST_PROMPT, length // 4)
    models = Models(ModelSection(name_or_path=str(teacher)), load_plugins(external=False))
    device, tokenizer = pick_device(), models.teacher.tokenizer
    model: Any = models.load_teacher(device=device)
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(0)
    encoded = [ids for ids in tokenizer(list(documents))["input_ids"] if len(ids) > prompt]
    prompts = []
    for row in range(rows):
        ids = encoded[row % len(encoded)]
        start = int(torch.randint(0, len(ids) - prompt, (), generator=generator))
        prompts.append(ids[start : start + prompt])
    lines = []
    for start in range(0, rows, ROWS_AT_ONCE):
        ids = torch.tensor(prompts[start : start + ROWS_AT_ONCE], device=device)
        written = model.generate(
            input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=length - prompt, **SAMPLING
        )
        lines += [json.dumps({"text": text}) for text in tokenizer.batch_decode(written, skip_special_tokens=True)]
    write_text(path, "\n".join(lines) + "\n")
    return path
