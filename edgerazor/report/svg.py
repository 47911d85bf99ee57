"""Pictures that matplotlib draws, as SVG that takes its colours from the page around it."""

import html
import io
import re
from collections.abc import Callable
from typing import Any

from edgerazor.report.page import colours

# Numbers that stand for colours while matplotlib draws; the page says what they are.
INK, LINE = "#fe0200", "#fe0300"
_NAMES = {INK: "--ink", LINE: "--line"}
_COLOURS, _DASHES = 8, ("-", "--", ":", "-.")
_SETTINGS = {
    "svg.fonttype": "none",
    "text.parse_math": False,
    "font.size": 9,
    **dict.fromkeys(("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"), INK),
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.color": LINE,
    "axes.grid": True,
    "axes.axisbelow": True,
    "legend.frameon": False,
    "legend.fontsize": 8,
}


def colour(index: int) -> str:
    """What stands for the colour of the series `index` while it is drawn."""
    return f"#fe01{index % _COLOURS:02x}"


def dash(index: int) -> str:
    """The line style that tells series of one colour apart."""
    return _DASHES[index // _COLOURS % len(_DASHES)]


def colour_name(index: int) -> str:
    """CSS for the colour of the series `index`."""
    return f"var(--series-{index % _COLOURS})"


def draw(plot: Callable[[Any], None], *, name: str, label: str, size: tuple[float, float]) -> str:
    """An `<svg>` element for a page; drawn twice, it is the same text.

    Args:
        plot: draws into the axes that it is given.
        name: of the picture; no two of a page may have the same.
        label: what is to be seen, for those who cannot.
        size: width and height in inches.
    """
    import matplotlib
    from matplotlib.figure import Figure

    buffer = io.StringIO()
    with matplotlib.rc_context({**_SETTINGS, "svg.hashsalt": name}):
        figure = Figure(figsize=size, layout="constrained")
        plot(figure.subplots())
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    return _for_page(buffer.getvalue(), label)


def standalone(svg: str) -> str:
    """A file of its own, with the colours that a page would give."""
    opening, _, rest = svg.partition(">")
    return f'{opening} font-family="sans-serif"><style>{colours()}</style>{rest}\n'


def _for_page(text: str, label: str) -> str:
    text = text[text.index("<svg") :].strip()
    text = re.sub(
        r"<metadata>.*?</metadata>|<defs>\s*<style.*?</style>\s*</defs>|<!--.*?-->", "", text, flags=re.DOTALL
    )
    text = re.sub(r' id="[\w.]+_\d+"', "", text)  # the same in every picture, and nothing refers to them
    text = re.sub(r"font(?:-family)?: [^;\"]*?(\d+(?:\.\d+)?px)[^;\"]*", r"font-size: \1", text)
    text = re.sub(r"font-family: [^;\"]*;? ?", "", text)
    text = re.sub(r"\n\s*", "\n", text)
    for number, name in _NAMES.items():
        text = text.replace(number, f"var({name})")
    text = re.sub(r"#fe010([0-7])", r"var(--series-\1)", text)
    shown = html.escape(label, quote=True)
    return text.replace("<svg", f'<svg role="img" aria-label="{shown}" stroke-linejoin="round"', 1)
