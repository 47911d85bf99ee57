"""Documents as tokens (METHOD 7): which are labels, where a document ends, where it is cut."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from typing import Any

import numpy as np
from transformers import PreTrainedTokenizerBase

from edgerazor.data.chat import ChatRenderer, Rendered
from edgerazor.data.messages import check_dialogue, with_system_prompt
from edgerazor.data.sources import Column, Documents
from edgerazor.data.tokens import Tokens, count_text_bytes, overlaps
from edgerazor.errors import DataError

BATCH = 64


@dataclass(frozen=True)
class Encoder:
    """A tokenizer and what is done with it.

    Attributes:
        tokenizer: a fast one, with an end-of-sequence token.
        sequence_length: dialogues are cut to it; texts stay whole here and are cut into segments later.
        system_prompt: for dialogues without a system message.
        vocabulary_size: of the model; None: ids are not compared with it.

    Raises:
        DataError: the tokenizer is a slow one or has no end-of-sequence token.
    """

    tokenizer: PreTrainedTokenizerBase
    sequence_length: int
    system_prompt: str | None = None
    vocabulary_size: int | None = None

    def __post_init__(self) -> None:
        if not self.tokenizer.is_fast:
            raise DataError(f"{self._name}: cannot say where in the text its tokens lie; expected a fast tokenizer")
        if self.tokenizer.eos_token_id is None:
            raise DataError(f"{self._name}: has no end-of-sequence token; set 'eos_token' in tokenizer_config.json")

    @property
    def _name(self) -> str:
        return f"tokenizer {self.tokenizer.name_or_path or type(self.tokenizer).__name__}"

    def encode(self, documents: Documents, index: np.ndarray, advance: Callable[[int], None]) -> tuple[Tokens, int]:
        """Tokens of the documents that `index` names, in its order, and how many dialogues were cut.

        Raises:
            DataError: a dialogue has the wrong structure or cannot be rendered (file and row are named), or an id is
                beyond the model's vocabulary.
        """
        parts, cut = [], 0
        for column, rows, values in documents.batches(index, BATCH):
            if column.format == "text":
                tokens = self._encode_texts(values)
            else:
                tokens, shortened = self._encode_dialogues(column, rows, values)
                cut += shortened
            self._check_ids(column, tokens)
            parts.append(tokens)
            advance(len(values))
        return Tokens.join(parts), cut

    def _encode_texts(self, texts: list[str]) -> Tokens:
        end_id = int(self.tokenizer.eos_token_id)
        return Tokens.join(document.with_end(end_id) for document in self._tokenize(texts, [None] * len(texts)))

    def _encode_dialogues(self, column: Column, rows: np.ndarray, values: list[Any]) -> tuple[Tokens, int]:
        rendered, lacks_end = [], []
        for row, value in zip(rows.tolist(), values, strict=True):
            where = column.where(row)
            messages = with_system_prompt(check_dialogue(value, where), self.system_prompt)
            dialogue = self._renderer.render(messages, where)
            rendered.append(dialogue)
            lacks_end.append(messages[-1]["role"] == "assistant" and not self._ends(dialogue))
        result, cut = [], 0
        tokenized = self._tokenize([dialogue.text for dialogue in rendered], [dialogue.spans for dialogue in rendered])
        for document, lacks in zip(tokenized, lacks_end, strict=True):
            whole = document.with_end(int(self.tokenizer.eos_token_id)) if lacks else document
            cut += len(whole.ids) > self.sequence_length
            result.append(whole.head(self.sequence_length))
        return Tokens.join(result), cut

    @cached_property
    def _renderer(self) -> ChatRenderer:
        return ChatRenderer(self.tokenizer)

    @cached_property
    def _special_ids(self) -> np.ndarray:
        added = {key for key, token in self.tokenizer.added_tokens_decoder.items() if token.special}
        return np.array(sorted(added | set(self.tokenizer.all_special_ids)), dtype=np.int32)

    def _ends(self, dialogue: Rendered) -> bool:
        """Closed by the template already; a template's line break behind the token changes nothing."""
        return dialogue.text.rstrip().endswith(str(self.tokenizer.eos_token))

    def _tokenize(self, texts: list[str], spans: list[Any]) -> list[Tokens]:
        """One `Tokens` per text; `spans` None: every token is a label.

        What a chat template made holds its special tokens already; other text gets those of the tokenizer.
        """
        from_template = spans[:1] != [None] and self._renderer.template is not None
        encoded = self.tokenizer(
            texts,
            add_special_tokens=not from_template,
            return_offsets_mapping=True,
            return_attention_mask=False,
            return_token_type_ids=False,
            verbose=False,
        )
        return [
            self._document(*document)
            for document in zip(texts, encoded["input_ids"], encoded["offset_mapping"], spans, strict=True)
        ]

    def _document(self, text: str, token_ids: list[int], places: list[tuple[int, int]], spans: Any) -> Tokens:
        ids = np.array(token_ids, dtype=np.int32)
        offsets = np.fromiter(chain.from_iterable(places), np.int64, 2 * len(places)).reshape(-1, 2)
        text_bytes = count_text_bytes(text, offsets)
        text_bytes[np.isin(ids, self._special_ids)] = 0
        is_label = np.ones(len(ids), dtype=np.bool_) if spans is None else overlaps(offsets, spans)
        return Tokens.of(ids, is_label, text_bytes)

    def _check_ids(self, column: Column, tokens: Tokens) -> None:
        largest = int(tokens.ids.max(initial=0))
        if self.vocabulary_size is not None and largest >= self.vocabulary_size:
            raise DataError(
                f"{column.name}: {self._name} makes id {largest}, but the model's vocabulary has "
                f"{self.vocabulary_size} entries; expected the tokenizer of the model"
            )
