"""A student of the original release 1.3.5, trained by its own trainer and measured; for an interpreter that has it.

python original_student.py JOB          (a folder that `original_release.py` writes: job.json, rows, held-out rows)

Nothing of this library can be imported here: both have one import name. What was measured goes to JOB/figures.json.
"""

import json
import sys
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import AutoModelForCausalLM, TrainingArguments


class Rows(torch.utils.data.Dataset[dict[str, Tensor]]):
    """Rows of one length: ids, labels and positions, int64 `[length]` each."""

    def __init__(self, path: Path):
        self.tensors = {name: tensor.long() for name, tensor in load_file(path).items()}

    def __len__(self) -> int:
        return len(self.tensors["input_ids"])

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return {name: tensor[index] for name, tensor in self.tensors.items()}


def main(folder: Path) -> None:
    job = json.loads((folder / "job.json").read_text(encoding="utf-8"))
    from edgerazor import EdgeRazorCausalLMTrainer

    student, teacher = (_model(job["teacher"]) for _ in range(2))
    arguments = TrainingArguments(output_dir=str(folder / "checkpoints"), **job["training"])
    trainer: Any = EdgeRazorCausalLMTrainer(
        model=student,
        teacher_model=teacher,
        qat_config=job["quantization"],
        kd_config=job["distillation"],
        args=arguments,
        train_dataset=Rows(folder / "rows.safetensors"),
    )
    trainer.train()
    held_out = Rows(folder / "held_out.safetensors")
    figures = measure(trainer.model.eval(), teacher.eval(), held_out, job["rows_at_once"])
    made = {**figures, "steps": trainer.state.global_step}
    (folder / "figures.json").write_text(json.dumps(made), encoding="utf-8")


def _model(folder: str) -> Any:
    """In float32, without a cache: transformers then keeps documents of one row apart by their positions."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    model.config.use_cache = False
    return model


@torch.no_grad()
def measure(student: Any, teacher: Any, rows: Rows, rows_at_once: int) -> dict[str, float]:
    """Means over predicted tokens, as `edgerazor evaluate` defines them: nats, and a share for the agreement."""
    sums = torch.zeros(4, dtype=torch.float64)
    count = 0
    for start in range(0, len(rows), rows_at_once):
        batch = {name: tensor[start : start + rows_at_once] for name, tensor in rows.tensors.items()}
        labels = batch.pop("labels")[:, 1:]
        known = labels >= 0
        mine, theirs = (model(**batch).logits[:, :-1][known].log_softmax(dim=-1) for model in (student, teacher))
        sums += torch.stack(
            [
                cross_entropy(mine, labels[known], reduction="sum"),
                (theirs.exp() * (theirs - mine)).sum(),
                (mine.argmax(dim=-1) == theirs.argmax(dim=-1)).sum(),
                cross_entropy(theirs, labels[known], reduction="sum"),
            ]
        ).double()
        count += int(known.sum())
    loss, divergence, agreement, teacher_loss = (sums / count).tolist()
    return {"loss": loss, "kl_teacher": divergence, "top1_agreement": agreement, "teacher_loss": teacher_loss}


if __name__ == "__main__":
    main(Path(sys.argv[1]))
