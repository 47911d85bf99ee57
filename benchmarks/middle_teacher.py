"""A teacher between the quickstart's and a real one: 7 M parameters in eight layers, from text that every user has.

python benchmarks/middle_teacher.py --output middle                 (the standard library's sources; hours on two cores)
python benchmarks/middle_teacher.py --output middle --steps 2000 --batch-size 16     (an hour on one core with AMX)
python benchmarks/middle_teacher.py --output middle --data TEXTS --steps 4000 --batch-size 64       (minutes on a GPU)

A run that was stopped goes on with the same command; the finished teacher is in OUTPUT/teacher.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM, Trainer, TrainingArguments
from transformers.trainer_utils import get_last_checkpoint

from edgerazor.kernels.processor import this_processor
from edgerazor.quickstart.corpus import load_corpus
from edgerazor.quickstart.pretrain import held_out_loss, train_tokenizer

LENGTH = 256


def config_of(tokenizer: PreTrainedTokenizerFast, layers: int, width: int) -> Qwen3Config:
    """Widths are multiples of 256 by default, so that the published group sizes fit."""
    return Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=3 * width,
        num_hidden_layers=layers,
        num_attention_heads=width // 64,
        num_key_value_heads=max(width // 128, 1),
        head_dim=64,
        max_position_embeddings=2048,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )


def token_stream(texts: Sequence[str], tokenizer: PreTrainedTokenizerFast) -> Tensor:
    """All documents one after another, each with the token that ends it."""
    ids: list[int] = []
    for encoded in tokenizer(list(texts))["input_ids"]:
        ids += [*encoded, tokenizer.eos_token_id]
    return torch.tensor(ids)


def rows_of(stream: Tensor) -> list[dict[str, Tensor]]:
    """The stream in rows of 256 tokens."""
    rows = stream[: len(stream) // LENGTH * LENGTH].view(-1, LENGTH)
    return [{"input_ids": row, "labels": row} for row in rows]


def make_teacher(arguments: argparse.Namespace) -> dict[str, Any]:
    """Train, or go on training, and write the teacher; returns what there is to say about it."""
    corpus = load_corpus(arguments.data)
    words = arguments.output / "tokenizer"
    if words.exists():
        tokenizer = PreTrainedTokenizerFast.from_pretrained(words)
    else:
        tokenizer = train_tokenizer(corpus.training, arguments.vocabulary)
        tokenizer.save_pretrained(words)
    torch.manual_seed(0)
    model = Qwen3ForCausalLM(config_of(tokenizer, arguments.layers, arguments.width))
    trainer = Trainer(model, _training(arguments), train_dataset=rows_of(token_stream(corpus.training, tokenizer)))
    checkpoints = Path(trainer.args.output_dir)
    trainer.train(resume_from_checkpoint=get_last_checkpoint(checkpoints) if checkpoints.is_dir() else None)
    loss = held_out_loss(model, token_stream(corpus.held_out, tokenizer), str(model.device))
    model.to(torch.bfloat16).save_pretrained(arguments.output / "teacher")
    tokenizer.save_pretrained(arguments.output / "teacher")
    return {"parameters": model.num_parameters(), "steps": trainer.state.global_step, "held_out_loss": loss}


def _training(arguments: argparse.Namespace) -> TrainingArguments:
    return TrainingArguments(
        output_dir=str(arguments.output / "checkpoints"),
        max_steps=arguments.steps,
        per_device_train_batch_size=arguments.batch_size,
        learning_rate=arguments.learning_rate,
        lr_scheduler_type="linear",
        warmup_steps=0.02,
        weight_decay=0.1,
        adam_beta2=0.98,
        use_cpu=not torch.cuda.is_available(),
        bf16=torch.cuda.is_available() or this_processor().bfloat16,
        save_steps=arguments.save_steps,
        save_total_limit=2,
        logging_steps=arguments.save_steps,
        report_to="none",
        seed=0,
    )


def main(given: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--data", type=Path, help="text file or folder")
    parser.add_argument("--steps", type=int, default=20_000, help="fixed from the first start: the schedule ends there")
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--learning-rate", type=float, default=2e-3)
    parser.add_argument("--save-steps", type=int, default=200)
    parser.add_argument("--vocabulary", type=int, default=2048)
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--width", type=int, default=256, help="a multiple of 64")
    print(make_teacher(parser.parse_args(given)))


if __name__ == "__main__":
    main()
