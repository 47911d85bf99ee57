"""Documents as tokens (METHOD 7): which are labels, where a document ends, where it is cut."""

import datetime
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import chain
from typing import Any

import numpy as np
from transformers import PreTrainedTokenizerBase

from edgerazor.data.bad_rows import BadRows
from edgerazor.data.boundaries import overlaps, split_at_starts
from edgerazor.data.chat import ChatRenderer, Rendered
from edgerazor.data.dialogue import Dialogue, check_answered
from edgerazor.data.messages import is_learned
from edgerazor.data.sources import Column, Documents
from edgerazor.data.tables import Row
from edgerazor.data.template import ChatTemplate
from edgerazor.data.tokens import Tokens, count_text_bytes
from edgerazor.errors import DataError

BATCH = 64
_NOTHING = Dialogue((), ())


@dataclass(frozen=True)
class Encoder:
    """A tokenizer and what is done with it.

    Attributes:
        tokenizer: a fast one, with an end-of-sequence token.
        sequence_length: dialogues are cut to it; texts stay whole here and are cut into segments later.
        system_prompt: for dialogues without a system message.
        vocabulary_size: of the model; None: ids are not compared with it.
        template_arguments: variables of the chat template.
        date: that it sees; None: today's.

    Raises:
        DataError: the tokenizer is a slow one or has no end-of-sequence token.
    """

    tokenizer: PreTrainedTokenizerBase
    sequence_length: int
    system_prompt: str | None = None
    vocabulary_size: int | None = None
    template_arguments: Mapping[str, Any] = field(default_factory=dict)
    date: datetime.date | None = None

    def __post_init__(self) -> None:
        if not self.tokenizer.is_fast:
            raise DataError(f"{self._name}: cannot say where in the text its tokens lie; expected a fast tokenizer")
        if self.tokenizer.eos_token_id is None:
            raise DataError(f"{self._name}: has no end-of-sequence token; set 'eos_token' in tokenizer_config.json")

    @property
    def _name(self) -> str:
        return f"tokenizer {self.tokenizer.name_or_path or type(self.tokenizer).__name__}"

    def encode(
        self, documents: Documents, index: np.ndarray, advance: Callable[[int], None], bad: BadRows
    ) -> tuple[Tokens, int]:
        """Tokens of the documents that `index` names, in its order, and how many dialogues were cut.

        A document that has the wrong structure or cannot be rendered is added to `bad` and left without tokens.

        Raises:
            DataError: an id is beyond the model's vocabulary.
        """
        parts, cut = [], 0
        for column, numbers, rows in documents.batches(index, BATCH):
            if column.format == "text":
                tokens = self._encode_texts(column, numbers, rows, bad)
            else:
                tokens, shortened = self._encode_dialogues(column, numbers, rows, bad)
                cut += shortened
            self._check_ids(column, tokens)
            parts.append(tokens)
            advance(len(rows))
        return Tokens.join(parts), cut

    def _encode_texts(self, column: Column, numbers: np.ndarray, rows: list[Row], bad: BadRows) -> Tokens:
        end_id = int(self.tokenizer.eos_token_id)
        documents = self._tokenize([row[column.field] for row in rows], [None] * len(rows))
        result = []
        for number, row, document in zip(numbers.tolist(), rows, documents, strict=True):
            beside = {key: value for key, value in row.items() if key not in (column.field, *column.ignore)}
            try:
                learned = is_learned(beside, column.where(number))
            except DataError as error:
                bad.add(error)
                result.append(document.head(0))
                continue
            whole = document.with_end(end_id)
            result.append(whole if learned else whole.without_labels())
        return Tokens.join(result)

    def _encode_dialogues(
        self, column: Column, numbers: np.ndarray, rows: list[Row], bad: BadRows
    ) -> tuple[Tokens, int]:
        dialogues, rendered = [], []
        for number, row in zip(numbers.tolist(), rows, strict=True):
            where = column.where(number)
            try:
                dialogue = column.dialogue(row, where, known=self._renderer.template)
                dialogue = check_answered(dialogue, where).with_system_prompt(self.system_prompt)
                rendered.append(self._renderer.render(dialogue, where))
                dialogues.append(dialogue)
            except DataError as error:
                bad.add(error)
                dialogues.append(_NOTHING)
                rendered.append(Rendered("", ()))
        documents = self._tokens_of(dialogues, rendered)
        cut = sum(len(document.ids) > self.sequence_length for document in documents)
        return Tokens.join(document.head(self.sequence_length) for document in documents), cut

    def encode_dialogues(self, dialogues: Sequence[Dialogue], places: Sequence[str]) -> list[Tokens]:
        """Tokens of whole dialogues, closed by the end-of-sequence token where the assistant has the last word.

        Args:
            dialogues: their learned turns become labels.
            places: file and row of each, for messages of errors.

        Raises:
            DataError: the chat template refuses one, or does not show a turn.
        """
        rendered = [self._renderer.render(dialogue, where) for dialogue, where in zip(dialogues, places, strict=True)]
        return self._tokens_of(dialogues, rendered)

    def _tokens_of(self, dialogues: Sequence[Dialogue], rendered: Sequence[Rendered]) -> list[Tokens]:
        tokenized = self._tokenize([result.text for result in rendered], [result.spans for result in rendered])
        end_id = int(self.tokenizer.eos_token_id)
        return [
            document.with_end(end_id) if dialogue.learned[-1:] == (True,) and not self._ends(result) else document
            for document, dialogue, result in zip(tokenized, dialogues, rendered, strict=True)
        ]

    @cached_property
    def _renderer(self) -> ChatRenderer:
        return ChatRenderer(ChatTemplate(self.tokenizer, self.template_arguments, self.date))

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
        from_template = spans[:1] != [None] and bool(self._renderer.template)
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
        if spans is not None:
            ids, offsets = split_at_starts(self.tokenizer, text, ids, offsets, spans)
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
