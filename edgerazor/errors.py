"""Errors that a person at the keyboard can cause or meet; the command line makes them a message and exit code 2."""

from edgerazor.version import __version__


def install_hint(extra: str) -> str:
    """How to install what the extra `extra` brings, as the end of a message that misses it.

    It names the repository and a wheel built from it, never the bare name: `edgerazor` on the package index is the
    original release, another project with the same import name.
    """
    return (
        f"run pip install '.[{extra}]' in the repository, or pip install "
        f"'edgerazor-{__version__}-py3-none-any.whl[{extra}]' with the wheel built there; edgerazor 1.3.5 on the "
        "package index is the original release, another package"
    )


def first_line(error: BaseException) -> str:
    """The first line of its message that is not blank, for a message of one line; its class if there is none."""
    return next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)


class EdgeRazorError(Exception):
    """Base class: something was wrong with what the user gave us, and the message says what to do about it."""


class RecipeError(EdgeRazorError):
    """The recipe is malformed; `problems` holds one line per fault, each with file, key path and expectation."""

    def __init__(self, problems: str | list[str]):
        self.problems = [problems] if isinstance(problems, str) else list(problems)
        super().__init__("\n".join(self.problems))


class PluginError(EdgeRazorError):
    """A plugin is broken, unknown, or conflicts with another one."""


class PlanError(EdgeRazorError):
    """The recipe cannot be applied to this model: a shape does not divide, a rule matches nothing, a tie disagrees."""


class DataError(EdgeRazorError):
    """Training or evaluation data is missing, empty or of another form than the recipe says."""


class TrainingError(EdgeRazorError):
    """A run cannot start or go on, for example because a weight or the loss is not finite."""


class OutputError(EdgeRazorError):
    """Nothing can be written to an output, or another process is writing to it."""


class CheckpointError(EdgeRazorError):
    """A checkpoint is missing, incomplete, damaged, or of a kind that was not expected here."""


class ExportError(EdgeRazorError):
    """A checkpoint cannot be held losslessly by the format asked for, or the exported file does not equal it."""


class SynthesisError(EdgeRazorError):
    """The teacher cannot write: the server does not answer as promised, or the file to write to is not ours."""
