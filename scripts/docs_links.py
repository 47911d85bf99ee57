"""Links of pages to files outside docs/ as addresses on the code host: a hook of mkdocs.

In the repository such a link is a plain relative path, which a code host follows. The site has no such file, so the
hook gives the address of the repository instead, and fails where the file does not exist.
"""

import re
from pathlib import Path
from typing import Any

from mkdocs.exceptions import PluginError

ROOT = Path(__file__).resolve().parents[1]
LINK = re.compile(r"(\]\()((?:\.\./)+[^)#\s]+)")


def on_page_markdown(markdown: str, *, page: Any, config: Any, **_: Any) -> str:
    """Rewrite every relative link that leaves docs/."""
    docs, folder = Path(config.docs_dir), Path(page.file.abs_src_path).parent

    def address(match: re.Match[str]) -> str:
        target = (folder / match[2]).resolve()
        if target.is_relative_to(docs):
            return match[0]
        if not target.is_relative_to(ROOT) or not target.exists():
            raise PluginError(f"{page.file.src_path}: there is no file {match[2]}")
        kind = "tree" if target.is_dir() else "blob"
        return f"{match[1]}{config.repo_url.rstrip('/')}/{kind}/main/{target.relative_to(ROOT).as_posix()}"

    return LINK.sub(address, markdown)
