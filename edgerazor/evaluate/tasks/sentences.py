"""What IFEval's checkers need beside the harness: two packages, and NLTK's table of sentence ends."""

import importlib.util

from edgerazor.errors import PluginError, install_hint

_NEEDED = ("langdetect", "immutabledict", "nltk")
_TABLE = "tokenizers/punkt_tab"


def check_sentences() -> None:
    """Refuse before the harness's checkers, when they are imported, try to fetch what is missing.

    Raises:
        PluginError: something is missing.
    """
    missing = [name for name in _NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise PluginError(f"ifeval: needs {', '.join(missing)}: {install_hint('eval')}")
    import nltk

    try:
        nltk.data.find(_TABLE)
    except LookupError as error:
        raise PluginError(
            "ifeval: NLTK's table punkt_tab is not on this machine, and nothing is downloaded here; run "
            "python -m nltk.downloader punkt_tab, or unpack it below a folder that NLTK_DATA names"
        ) from error
