"""The recipe that `edgerazor init` writes."""

from importlib import resources
from pathlib import Path

from edgerazor.errors import RecipeError


def write_starter(path: Path, *, force: bool = False) -> None:
    """Write the commented starter recipe to `path`.

    Raises:
        RecipeError: the file is there already and `force` is not set, or the folder cannot be written to.
    """
    if path.exists() and not force:
        raise RecipeError(f"{path}: is there already; choose another name, or --force to overwrite it")
    text = (resources.files("edgerazor.recipes") / "starter.yaml").read_text(encoding="utf-8")
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise RecipeError(f"{path}: cannot be written: {error.strerror or error}") from error
