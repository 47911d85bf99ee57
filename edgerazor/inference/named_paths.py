"""Models on the command line, by name."""

from collections.abc import Sequence
from pathlib import Path

from edgerazor.errors import EdgeRazorError


def named_paths(arguments: Sequence[str]) -> dict[str, Path]:
    """`NAME=PATH` or `PATH`, which is named after its file or folder.

    Raises:
        EdgeRazorError: two have the same name.
    """
    found: dict[str, Path] = {}
    for argument in arguments:
        name, sign, place = argument.partition("=")
        named = bool(sign and name and place) and not Path(argument).exists()
        path = Path(place if named else argument)
        whole = path.resolve()
        name = name if named else whole.name if whole.is_dir() else whole.stem
        if name in found:
            raise EdgeRazorError(
                f"{argument}: another model is named '{name}' too; give names of your own: NAME={argument}"
            )
        found[name] = path
    return found
