"""What runtimes of folders have in common: the tokenizer that lies beside the model."""

from pathlib import Path
from typing import Any

from edgerazor.core.contracts.runtime import TokenizerRuntime
from edgerazor.errors import CheckpointError, ExportError
from edgerazor.models.tokenizer import load_tokenizer


class FolderRuntime(TokenizerRuntime):
    """A runtime of an exported folder, whose tokenizer is read when it is first asked for.

    Attributes:
        path: of the folder.
    """

    path: Path
    _tokenizer: Any = None

    @property
    def tokenizer(self) -> Any:
        """The tokenizer in the folder.

        Raises:
            ExportError: there is none, or its files are damaged.
        """
        if self._tokenizer is None:
            try:
                self._tokenizer = load_tokenizer(self.path)
            except CheckpointError as error:
                raise ExportError(str(error)) from error
        return self._tokenizer
