"""The tokenizer in a folder, or one line that says why there is none."""

from pathlib import Path
from typing import Any

from edgerazor.errors import CheckpointError, first_line


def load_tokenizer(folder: Path) -> Any:
    """The tokenizer whose files lie in a folder.

    Raises:
        CheckpointError: there is none, or its files are damaged.
    """
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except Exception as error:  # the package tokenizers raises this class itself
        raise CheckpointError(f"{folder}: no usable tokenizer: {first_line(error)}") from error
