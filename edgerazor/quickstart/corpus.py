"""Text that every user already has: the interpreter's own standard library.

Nothing is downloaded or redistributed. Files are split, not lines, and by a hash of their relative path, so that a file
held out when the shipped teacher was trained stays held out under another Python version.
"""

import hashlib
import json
import random
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from edgerazor.errors import DataError

HELD_OUT_PERCENT = 5
MINIMUM_BYTES = 1_000_000
_EXCLUDED_FOLDERS = frozenset(
    {
        "__pycache__",
        "encodings",
        "idle_test",
        "pydoc_data",
        "site-packages",
        "dist-packages",
        "test",
        "tests",
        "turtledemo",
    }
)


@dataclass(frozen=True)
class Corpus:
    """Documents for training and documents held out, with a line on where they came from."""

    training: list[str]
    held_out: list[str]
    origin: str

    def write(self, folder: Path) -> tuple[Path, Path]:
        """Write `training.jsonl` and `held_out.jsonl` (one `{"text": ...}` a line) and return both paths."""
        folder.mkdir(parents=True, exist_ok=True)
        paths = (folder / "training.jsonl", folder / "held_out.jsonl")
        for path, documents in zip(paths, (self.training, self.held_out), strict=True):
            path.write_text("".join(json.dumps({"text": text}) + "\n" for text in documents), encoding="utf-8")
        return paths


def load_corpus(path: Path | None = None, *, seed: int = 0) -> Corpus:
    """Return the offline corpus: `path` if given, else the standard library, else seeded synthetic text.

    Args:
        path: a text file, or a folder whose `.py`, `.txt` and `.md` files are read.
        seed: order of the documents, and the content of the synthetic text.

    Raises:
        DataError: `path` does not exist, or holds too few documents to hold some out.
    """
    if path is not None:
        documents, origin = dict(_files_below(path)), str(path)
        if not documents:
            raise DataError(
                f"{path}: no .py, .txt or .md file with text in it; expected a text file or a folder of them"
            )
        if len(documents) == 1:
            documents = _paragraph_documents(next(iter(documents.values())))
    else:
        standard_library = Path(sysconfig.get_path("stdlib"))
        documents, origin = dict(_files_below(standard_library, suffixes=(".py",))), "Python standard library sources"
        if sum(len(text) for text in documents.values()) < MINIMUM_BYTES:
            documents, origin = dict(_synthetic_documents(seed)), "synthetic text (no standard library sources found)"
    return _split(documents, origin, seed)


def is_held_out(relative_path: str) -> bool:
    """Whether the file of this relative POSIX path belongs to the held-out share."""
    return int.from_bytes(hashlib.sha256(relative_path.encode()).digest()[:4], "big") % 100 < HELD_OUT_PERCENT


def _split(documents: dict[str, str], origin: str, seed: int) -> Corpus:
    names = sorted(documents)
    held_out = [name for name in names if is_held_out(name)]
    if not held_out and len(names) > 1:
        held_out = names[-1:]
    if not held_out:
        raise DataError(f"{origin}: one document is not enough to hold some text out for evaluation")
    training = [name for name in names if name not in set(held_out)]
    random.Random(seed).shuffle(training)
    return Corpus([documents[name] for name in training], [documents[name] for name in held_out], origin)


def _files_below(root: Path, suffixes: tuple[str, ...] = (".py", ".txt", ".md")) -> Iterator[tuple[str, str]]:
    if not root.exists():
        raise DataError(f"{root}: no such file or folder")
    if root.is_file():
        yield root.name, root.read_text(encoding="utf-8", errors="replace")
        return
    for file in sorted(root.rglob("*")):
        relative = file.relative_to(root)
        if file.suffix not in suffixes or _EXCLUDED_FOLDERS.intersection(relative.parts[:-1]) or not file.is_file():
            continue
        text = file.read_text(encoding="utf-8", errors="replace")
        if text.strip():
            yield relative.as_posix(), text


def _paragraph_documents(text: str, characters: int = 8192) -> dict[str, str]:
    """Cut one long text at blank lines into documents of about `characters`."""
    documents: list[str] = [""]
    for paragraph in text.split("\n\n"):
        if len(documents[-1]) > characters:
            documents.append("")
        documents[-1] += paragraph + "\n\n"
    return {f"part-{index:05d}": part for index, part in enumerate(documents)}


def _synthetic_documents(seed: int, count: int = 400) -> Iterator[tuple[str, str]]:
    """Templated sentences, arithmetic and nested brackets: learnable, and the same for the same seed."""
    rng = random.Random(seed)
    subjects, verbs = ("the cat", "a board", "our model", "the phone", "a reader"), ("sees", "runs", "keeps", "drops")
    objects, places = ("a weight", "the scale", "one group", "every row"), ("at home", "on a chip", "in memory")
    for index in range(count):
        lines = []
        for _ in range(120):
            first, second = rng.randrange(100), rng.randrange(100)
            depth = rng.randrange(1, 8)
            lines.append(f"{rng.choice(subjects)} {rng.choice(verbs)} {rng.choice(objects)} {rng.choice(places)}.")
            lines.append(f"{first} + {second} = {first + second}")
            lines.append("(" * depth + "x" + ")" * depth)
        yield f"synthetic-{index:04d}", "\n".join(lines)
