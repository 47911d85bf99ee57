"""On-policy batches: prompts of the data, answers of the student, judged by the teacher (after arXiv:2306.13649)."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers import GenerationConfig

from edgerazor.data.collate import prediction_rows
from edgerazor.data.rows import IGNORE_INDEX
from edgerazor.schemas.distillation import OnPolicySection

FLAG = "on_policy"


class OnPolicySampler:
    """Turns a share of the batches into texts that the student goes on with itself.

    Which batches, and what is drawn, follows from the seed, the step and the number of the batch; all ranks turn the
    same ones.

    Args:
        section: of the recipe.
        seed: of the run.
        sequence_length: of the data; no row grows longer.
        pad_token_id: fills what a shorter row leaves open.
        stop_ids: tokens that end an answer.
    """

    def __init__(
        self, section: OnPolicySection, *, seed: int, sequence_length: int, pad_token_id: int, stop_ids: list[int]
    ):
        self.section, self.seed, self.sequence_length = section, seed, sequence_length
        self.pad_token_id, self.stop_ids = pad_token_id, stop_ids

    def is_chosen(self, step: int, index: int) -> bool:
        """Whether the batch of this number within an optimizer step gets new answers."""
        generator = torch.Generator().manual_seed(_mixed(self.seed, step, index))
        return float(torch.rand((), generator=generator)) < self.section.share

    @torch.no_grad()
    def resample(
        self, student: nn.Module, batch: dict[str, Any], *, step: int, index: int, rank: int
    ) -> dict[str, Any]:
        """A batch of the same prompts with answers that the student draws.

        Args:
            student: not wrapped; it answers in evaluation mode.
            batch: `input_ids`, `labels` and `attention_mask`, padded on the right.

        Returns:
            The same keys, labels on what was drawn, and `on_policy`: true.
        """
        prompts = [
            ids[: self._prompt_length(labels, int(mask.sum()))]
            for ids, labels, mask in zip(batch["input_ids"], batch["labels"], batch["attention_mask"], strict=True)
        ]
        ids, mask = _left_padded(prompts, self.pad_token_id)
        devices = [ids.device] if ids.device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices), _answering(student):
            torch.manual_seed(_mixed(self.seed, step, index, rank))
            drawn = student.generate(  # type: ignore[operator]
                input_ids=ids,
                attention_mask=mask,
                do_sample=True,
                temperature=self.section.temperature,
                top_p=self.section.top_p,
                top_k=0,
                max_new_tokens=min(self.section.max_new_tokens, self.sequence_length - min(map(len, prompts))),
                pad_token_id=self.pad_token_id,
                eos_token_id=self.stop_ids,
            )[:, ids.shape[1] :]
        room = (self.sequence_length - len(prompt) for prompt in prompts)
        answers = [self._until_stop(row[:most]) for row, most in zip(drawn, room, strict=True)]
        return self._batch(prompts, answers, batch)

    def _prompt_length(self, labels: Tensor, length: int) -> int:
        """What stands before the first label, at least `prompt_tokens`, and never the whole row."""
        first = int((labels != IGNORE_INDEX).int().argmax())
        return max(1, min(max(first, self.section.prompt_tokens), length - 1))

    def _until_stop(self, row: Tensor) -> Tensor:
        """The answer with its end-of-text token, without what fills the batch behind it."""
        stops = torch.isin(row, torch.tensor(self.stop_ids, device=row.device)).nonzero()
        return row[: int(stops[0]) + 1] if len(stops) else row

    def _batch(self, prompts: list[Tensor], answers: list[Tensor], batch: dict[str, Any]) -> dict[str, Any]:
        lengths = [len(prompt) + len(answer) for prompt, answer in zip(prompts, answers, strict=True)]
        ids = batch["input_ids"].new_full((len(prompts), max(lengths)), self.pad_token_id)
        labels = torch.full_like(ids, IGNORE_INDEX)
        mask = torch.zeros_like(ids)
        for row, (prompt, answer) in enumerate(zip(prompts, answers, strict=True)):
            ids[row, : lengths[row]] = torch.cat([prompt, answer])
            labels[row, len(prompt) : lengths[row]] = answer
            mask[row, : lengths[row]] = 1
        changed = {"input_ids": ids, "labels": labels, "attention_mask": mask, "token_mask": mask.bool()}
        return {**batch, **changed, "prediction_rows": prediction_rows(labels), FLAG: True}


def _left_padded(prompts: list[Tensor], pad_token_id: int) -> tuple[Tensor, Tensor]:
    width = max(map(len, prompts))
    ids = prompts[0].new_full((len(prompts), width), pad_token_id)
    mask = torch.zeros_like(ids)
    for row, prompt in enumerate(prompts):
        ids[row, width - len(prompt) :] = prompt
        mask[row, width - len(prompt) :] = 1
    return ids, mask


@contextmanager
def _answering(student: Any) -> Iterator[None]:
    """Evaluation mode, with a cache, and without the model's own sampling: a repetition penalty is not the student."""
    training, cache, generation = student.training, student.config.use_cache, student.generation_config
    student.eval()
    student.config.use_cache, student.generation_config = True, GenerationConfig()
    try:
        yield
    finally:
        student.config.use_cache, student.generation_config = cache, generation
        student.train(training)


def _mixed(*numbers: int) -> int:
    """One seed of several numbers."""
    seed = 0
    for number in numbers:
        seed = (seed * 1_000_003 + number + 1) % (1 << 63)
    return seed
