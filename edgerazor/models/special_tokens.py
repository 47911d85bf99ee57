"""Special tokens that configuration, generation settings and tokenizer state, made to agree before they are written."""

from collections.abc import Iterable, Iterator
from typing import Any

from edgerazor.errors import CheckpointError
from edgerazor.models.types import vocabulary_size


def drop_impossible_padding(config: Any) -> None:
    """Forget a padding token that is no row of the embedding, with which transformers could build no model."""
    for part in (config, config.get_text_config()):
        if not _is_row(getattr(part, "pad_token_id", None), config):
            part.pad_token_id = None


def settle_special_tokens(model: Any, tokenizer: Any = None, *, ends: Iterable[int] = ()) -> tuple[str, ...]:
    """Make what a model is written with agree, in place, so that every engine pads and stops alike.

    The generation settings get every token that ends a text: those that they, the configuration and the tokenizer
    state, and `ends`. A padding token without a row in the embedding gives way to the end-of-sequence token.

    Args:
        model: a transformers model.
        tokenizer: of the model, or a processor around one; None: nothing is known of it.
        ends: further tokens that a text may end with, such as the one that closed the turns it was trained on.

    Returns:
        What was changed, one line each, where it was not right before.

    Raises:
        CheckpointError: transformers refuses the generation settings, whatever is done.
    """
    tokenizer = getattr(tokenizer, "tokenizer", tokenizer)
    return (*_settle_padding(model, tokenizer), *_settle_stops(model, tokenizer, ends), *_settle_sampling(model))


def padding_token(tokenizer: Any, vocabulary: int) -> int:
    """A token to fill rows with, which no loss sees: the padding token, the end-of-sequence token, or 0."""
    stated = (tokenizer.pad_token_id, tokenizer.eos_token_id)
    return next((number for number in stated if number is not None and 0 <= number < vocabulary), 0)


def stop_tokens(model: Any, tokenizer: Any) -> set[int]:
    """Numbers of all tokens that end a text: those of generation settings, configuration and tokenizer."""
    config = model.config
    parts = (getattr(model, "generation_config", None), config, config.get_text_config(), tokenizer)
    stated = [_numbers(getattr(part, "eos_token_id", None)) for part in parts]
    return {number for numbers in stated for number in numbers if _is_row(number, config)}


def _settle_padding(model: Any, tokenizer: Any) -> Iterator[str]:
    vocabulary = vocabulary_size(model.config)
    drop_impossible_padding(model.config)
    generation = getattr(model, "generation_config", None)
    if generation is not None and not _is_row(generation.pad_token_id, model.config):
        generation.pad_token_id = None
    if tokenizer is not None and not _is_row(getattr(tokenizer, "pad_token_id", None), model.config):
        token, number = tokenizer.pad_token, tokenizer.pad_token_id
        tokenizer.pad_token = tokenizer.eos_token
        yield (
            f"tokenizer: pad token {token!r} is number {number}, but the embedding has {vocabulary} rows; rows are "
            f"padded with {tokenizer.eos_token!r}"
        )


def _settle_stops(model: Any, tokenizer: Any, ends: Iterable[int]) -> Iterator[str]:
    generation = getattr(model, "generation_config", None)
    if generation is None:
        return
    before = _numbers(generation.eos_token_id)
    stops = stop_tokens(model, tokenizer) | {number for number in ends if _is_row(number, model.config)}
    generation.eos_token_id = sorted(stops) if len(stops) > 1 else next(iter(stops), None)
    if before and stops - before:
        added = ", ".join(map(str, sorted(stops - before)))
        yield f"generation_config.json: token {added} ends a text too, as the configuration or the tokenizer says"


def _settle_sampling(model: Any) -> Iterator[str]:
    """Settings of sampling without `do_sample` are refused by transformers when they are saved."""
    generation = getattr(model, "generation_config", None)
    if generation is None or _fault(generation) is None:
        return
    generation.do_sample = True
    if (fault := _fault(generation)) is not None:
        raise CheckpointError(f"generation_config.json: transformers refuses it: {fault}")
    yield "generation_config.json: has settings of sampling, so do_sample is true now"


def _fault(generation: Any) -> str | None:
    try:
        generation.validate(strict=True)
    except ValueError as error:
        return str(error)
    return None


def _is_row(number: int | None, config: Any) -> bool:
    return number is None or 0 <= number < vocabulary_size(config)


def _numbers(stated: Any) -> set[int]:
    return set(stated) if isinstance(stated, list | tuple) else set() if stated is None else {int(stated)}
