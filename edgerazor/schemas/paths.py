"""Paths that a person writes."""

from pathlib import Path


def local_path(text: str) -> Path:
    """The path as it stands; `~` and `~/...` are the home folder unless there is something of that name here."""
    path = Path(text)
    return path.expanduser() if path.parts[:1] == ("~",) and not path.exists() else path
