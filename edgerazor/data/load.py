"""The data section of a recipe, as datasets."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from datasets import Dataset
from transformers import PreTrainedTokenizerBase

from edgerazor.data.bad_rows import BadRows
from edgerazor.data.clock import fix_date
from edgerazor.data.encoding import Encoder
from edgerazor.data.mixing import HELD_OUT, ORDER, generator, mix_sources, split_held_out
from edgerazor.data.progress import show_progress
from edgerazor.data.rows import build_dataset, cut_segments
from edgerazor.data.sources import Documents, load_documents
from edgerazor.data.tokens import Tokens
from edgerazor.errors import DataError
from edgerazor.schemas.data import DataSection


@dataclass(frozen=True)
class Usage:
    """What became of the documents of an epoch, or of those held out.

    Attributes:
        documents: read and chosen; per source, in the order of the recipe.
        empty: rows of the sources without any text.
        cut: dialogues shortened to the sequence length.
        unused: documents in which nothing is left to predict, for example after the cut.
        tokens: in all rows.
        labels: tokens that are predicted and learned.
        longest: tokens of the longest sequence.
    """

    documents: tuple[int, ...]
    empty: int
    cut: int
    unused: int
    tokens: int
    labels: int
    longest: int


@dataclass(frozen=True)
class Data:
    """Rows to train on and rows held out, with what was used of the sources; `bad_rows` were left out."""

    train: Dataset
    held_out: Dataset | None
    usage: Usage
    held_out_usage: Usage | None = None
    bad_rows: int = 0


def load_data(section: DataSection, tokenizer: PreTrainedTokenizerBase, *, vocabulary_size: int | None = None) -> Data:
    """Read, split, mix, tokenize and pack (METHOD 7); the same section and tokenizer give the same rows.

    Args:
        section: the recipe's `data`.
        tokenizer: of the model; it must be a fast one with an end-of-sequence token.
        vocabulary_size: of the model, to find a tokenizer that is not its own; None: not compared.

    Returns:
        Datasets in memory with rows `input_ids`, `labels` (int32 lists, -100: not learned), `label_bytes` (UTF-8 bytes
        of the text that predicted labels stand for) and, with packing, `position_ids`.

    Raises:
        DataError: a file, column or row is not as expected (it is named), or nothing is left to learn from.
    """
    section = fix_date(section, tokenizer)
    encoder = Encoder(
        tokenizer,
        section.sequence_length,
        section.system_prompt,
        vocabulary_size,
        template_arguments=section.chat_template_kwargs,
        date=section.date,
    )
    bad = BadRows(section.on_bad_row)
    sources = [load_documents(source, bad) for source in section.sources]
    training = [np.arange(len(documents)) for documents in sources]
    held_sources, held = sources, None
    if isinstance(section.held_out, tuple):
        held_sources = [load_documents(source, bad) for source in section.held_out]
        held = [np.arange(len(documents)) for documents in held_sources]
    _check_documents([*sources, *held_sources], bad)
    if isinstance(section.held_out, float):
        training, held = _split(sources, section.held_out, section.seed)
    ratios, paths = [source.ratio for source in section.sources], [source.path for source in section.sources]
    training = mix_sources(training, ratios, paths, section.seed)
    order = generator(section.seed, ORDER).permutation(sum(map(len, training)))
    train, usage = _rows(section, encoder, sources, training, order, bad)
    if held is None:
        bad.settle()
        return Data(train, None, usage, bad_rows=bad.count)
    held_out, held_out_usage = _rows(section, encoder, held_sources, held, np.arange(sum(map(len, held))), bad)
    bad.settle()
    return Data(train, held_out, usage, held_out_usage, bad.count)


def _check_documents(sources: Sequence[Documents], bad: BadRows) -> None:
    """Without a document in a source nothing can be mixed."""
    if any(not len(documents) for documents in sources):
        bad.settle()
        empty = ", ".join(documents.path for documents in sources if not len(documents))
        raise DataError(f"{empty}: no row can be used")


def _split(sources: Sequence[Documents], share: float, seed: int) -> tuple[list[np.ndarray], list[np.ndarray]]:
    pairs = [
        split_held_out(len(documents), share, documents.path, generator(seed, HELD_OUT, number))
        for number, documents in enumerate(sources)
    ]
    return [training for training, _ in pairs], [held for _, held in pairs]


def _rows(
    section: DataSection,
    encoder: Encoder,
    sources: Sequence[Documents],
    chosen: Sequence[np.ndarray],
    order: np.ndarray,
    bad: BadRows,
) -> tuple[Dataset, Usage]:
    parts, cut = [], 0
    with show_progress("Tokenizing", len(order)) as advance:
        for documents, index in zip(sources, chosen, strict=True):
            tokens, shortened = encoder.encode(documents, index, advance, bad)
            parts.append(tokens)
            cut += shortened
    if bad.policy == "refuse":
        bad.settle()
    tokens = Tokens.join(parts)
    segments = cut_segments(tokens, order, section.sequence_length)
    if not len(segments.starts):
        paths = ", ".join(documents.path for documents in sources)
        raise DataError(
            f"{paths}: nothing is left to learn from: none of {len(order)} documents has a label behind its first "
            f"token within {section.sequence_length} tokens"
        )
    dataset = build_dataset(tokens, segments, section.sequence_length, packing=section.packing)
    usage = Usage(
        documents=tuple(map(len, chosen)),
        empty=sum(documents.empty for documents in sources),
        cut=cut,
        unused=segments.unused,
        tokens=int(segments.lengths.sum()),
        labels=_count_labels(tokens, segments.starts, segments.lengths),
        longest=int(segments.lengths.max()),
    )
    return dataset, usage


def _count_labels(tokens: Tokens, starts: np.ndarray, lengths: np.ndarray) -> int:
    before = np.concatenate([[0], np.cumsum(tokens.is_label, dtype=np.int64)])
    return int((before[starts + lengths] - before[starts + 1]).sum())
