"""Train the quickstart's 16-bit teacher: a small Qwen3 on the offline corpus.

`scripts/pretrain_teacher.py --seconds 4500 --output FOLDER` made the teacher that ships with the
package. It is trained to convergence on purpose: next to an unfinished teacher every student looks good, because it
simply goes on learning.
"""

import platform
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch.nn import functional
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

from edgerazor.errors import DataError
from edgerazor.quickstart.corpus import Corpus

SEQUENCE_LENGTH = 256
END_OF_TEXT = "<|endoftext|>"


@dataclass(frozen=True)
class PretrainSettings:
    """Optimisation of the teacher; `seconds` is wall clock and drives the learning-rate schedule."""

    seconds: float
    batch_size: int = 8
    peak_learning_rate: float = 3e-3
    warmup: float = 0.02
    weight_decay: float = 0.1
    seed: int = 0
    device: str = "cpu"


def teacher_config(vocabulary_size: int, end_of_text_id: int) -> Qwen3Config:
    """The shape of the quickstart teacher: widths are multiples of 256, so every group size is legal."""
    return Qwen3Config(
        vocab_size=vocabulary_size,
        hidden_size=256,
        intermediate_size=512,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=64,
        max_position_embeddings=2048,
        tie_word_embeddings=True,
        rope_parameters={"rope_type": "default", "rope_theta": 10000.0},
        bos_token_id=None,
        eos_token_id=end_of_text_id,
        pad_token_id=end_of_text_id,
    )


def train_tokenizer(texts: Sequence[str], vocabulary_size: int = 1024) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer with one special token, the end of a document."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary_size, special_tokens=[END_OF_TEXT], initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token=END_OF_TEXT, pad_token=END_OF_TEXT, clean_up_tokenization_spaces=False
    )


def pretrain(
    corpus: Corpus, settings: PretrainSettings, *, report: Callable[[str], None] = print
) -> tuple[Qwen3ForCausalLM, PreTrainedTokenizerFast, dict[str, object]]:
    """Train tokenizer and model until `settings.seconds` have passed.

    Returns:
        The model (fp32, evaluation mode), its tokenizer, and the facts for its card.

    Raises:
        DataError: the corpus is shorter than one batch.
    """
    torch.manual_seed(settings.seed)
    tokenizer = train_tokenizer(corpus.training)
    training, held_out = (_token_stream(texts, tokenizer) for texts in (corpus.training, corpus.held_out))
    if min(len(training), len(held_out)) <= SEQUENCE_LENGTH * settings.batch_size:
        raise DataError(f"{corpus.origin}: too little text to train a teacher; give a larger corpus")
    model = Qwen3ForCausalLM(teacher_config(len(tokenizer), tokenizer.eos_token_id)).to(settings.device)
    started, steps = time.monotonic(), _optimise(model, training, settings, report)
    loss = held_out_loss(model, held_out, settings.device)
    text_bytes = sum(len(text.encode()) for text in corpus.held_out)
    facts = {
        "data": corpus.origin,
        "python": platform.python_version(),
        "budget": settings.seconds,
        "threads": torch.get_num_threads(),
        "seconds": round(time.monotonic() - started),
        "steps": steps,
        "tokens": steps * settings.batch_size * SEQUENCE_LENGTH,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "held_out_loss": round(loss, 4),
        "held_out_bits_per_byte": round(loss * len(held_out) / text_bytes / 0.6931471805599453, 4),
    }
    return model.eval(), tokenizer, facts


def held_out_loss(model: Qwen3ForCausalLM, tokens: torch.Tensor, device: str) -> float:
    """Mean cross entropy, nats per token, over consecutive windows of the stream."""
    model.eval()
    windows = tokens[: len(tokens) // SEQUENCE_LENGTH * SEQUENCE_LENGTH].view(-1, SEQUENCE_LENGTH)
    total, count = 0.0, 0
    with torch.no_grad():
        for batch in windows.split(32):
            logits = model(batch.to(device)).logits[:, :-1].float()
            targets = batch[:, 1:].to(device)
            total += float(functional.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="sum"))
            count += targets.numel()
    model.train()
    return total / count


def save_teacher(
    model: Qwen3ForCausalLM, tokenizer: PreTrainedTokenizerFast, facts: Mapping[str, object], folder: Path
) -> None:
    """Write model (bf16 safetensors), tokenizer and card."""
    model.to(torch.bfloat16).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    (folder / "README.md").write_text(_CARD.format(**facts), encoding="utf-8")


_CARD = """# Teacher of the quickstart

A Qwen3 for causal language modelling with {parameters} parameters: hidden size 256, two layers, four attention heads
and two key/value heads of 64, feed-forward size 512, tied embeddings, byte-level BPE with 1024 tokens. Weights are
bfloat16.

- Data: {data} (Python {python}), split by file; 5 % of the files held out by a hash of their relative path.
- Licence: Apache-2.0, like the library. The text it learned from is under the Python Software Foundation License.
- Command: `python scripts/pretrain_teacher.py --seconds {budget:g} --output FOLDER`
- Training: {seconds} s wall clock on {threads} CPU thread(s), {steps} steps, {tokens} tokens.
- Held out: {held_out_loss} nats per token, {held_out_bits_per_byte} bits per byte.

It exists so that students can be compared with something finished. It is no use as a language model.
"""


def _token_stream(texts: Sequence[str], tokenizer: PreTrainedTokenizerFast) -> torch.Tensor:
    ids: list[int] = []
    for encoded in tokenizer(list(texts))["input_ids"]:
        ids.extend(encoded)
        ids.append(tokenizer.eos_token_id)
    return torch.tensor(ids)


def _optimise(
    model: Qwen3ForCausalLM, tokens: torch.Tensor, settings: PretrainSettings, report: Callable[[str], None]
) -> int:
    decayed = [parameter for parameter in model.parameters() if parameter.ndim > 1]
    others = [parameter for parameter in model.parameters() if parameter.ndim == 1]
    optimizer = torch.optim.AdamW(
        [{"params": decayed, "weight_decay": settings.weight_decay}, {"params": others, "weight_decay": 0.0}],
        lr=settings.peak_learning_rate,
        betas=(0.9, 0.98),
        fused=True,
    )
    generator = torch.Generator().manual_seed(settings.seed)
    started, step, next_report = time.monotonic(), 0, 0.0
    while (fraction := (time.monotonic() - started) / settings.seconds) < 1.0:
        for group in optimizer.param_groups:
            group["lr"] = settings.peak_learning_rate * schedule(fraction, settings.warmup)
        starts = torch.randint(0, len(tokens) - SEQUENCE_LENGTH - 1, (settings.batch_size,), generator=generator)
        batch = torch.stack([tokens[start : start + SEQUENCE_LENGTH] for start in starts.tolist()]).to(settings.device)
        loss = model(input_ids=batch, labels=batch).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        step += 1
        if fraction >= next_report:
            report(f"{fraction:5.1%}  step {step}  loss {loss.item():.3f}")
            next_report += 0.02
    return step


def schedule(fraction: float, warmup: float) -> float:
    """Linear warm-up, then a linear decay to zero; `fraction` is the share of the time that has passed."""
    if fraction < warmup:
        return max(fraction / warmup, 1e-3)
    return max(1.0 - (fraction - warmup) / (1.0 - warmup), 0.0)
