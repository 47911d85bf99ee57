"""Whether onnxruntime-genai reads the folder's tokenizer as Transformers does, where it is installed."""

from collections.abc import Iterator
from pathlib import Path

from edgerazor.errors import CheckpointError, first_line
from edgerazor.models.tokenizer import load_tokenizer
from edgerazor.plugins.exporters.common import TOKENIZER
from edgerazor.plugins.exporters.probe_texts import probe_texts
from edgerazor.plugins.exporters.token_differences import describe_differences

ENGINE = "onnxruntime-genai"
_SPECIAL = "tokenizer.update_options(add_special_tokens='true')"
_HINT = "; encode with Transformers' tokenizer there, and hand the ids to append_tokens"


def genai_token_notes(folder: Path) -> Iterator[str]:
    """A line for each way in which its tokens differ; none where it is not installed or the folder has no tokenizer.

    Its own reader of `tokenizer.json` adds no token around a text unless it is told to, and knows fewer normalizers.
    """
    if not (folder / TOKENIZER).is_file():
        return
    try:
        import onnxruntime_genai as genai

        reference = load_tokenizer(folder)
    except (ImportError, CheckpointError):
        return
    try:
        tokenizer = genai.Tokenizer(str(folder))
        tokenizer.update_options(add_special_tokens="true")
    except TypeError:  # before 0.16 a tokenizer takes a model, which would have to be loaded for it
        yield f"{ENGINE} {genai.__version__}: its tokens were not compared; from 0.16 on they are"
        return
    except RuntimeError as error:
        yield f"{ENGINE} cannot read the tokenizer: {first_line(error)}{_HINT}"
        return
    if reference.num_special_tokens_to_add():
        yield f"{ENGINE} puts the special tokens around a text only after {_SPECIAL}"
    # Its texts end at a null byte.
    texts = [text for text in probe_texts() if "\0" not in text]
    found = ([int(number) for number in tokenizer.encode(text)] for text in texts)
    count, difference = describe_differences(ENGINE, reference, texts, found, reference.convert_ids_to_tokens)
    if count:
        yield difference + _HINT
