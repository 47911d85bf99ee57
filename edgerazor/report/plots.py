"""What is drawn: curves over steps, layers that were chosen, bits of layers, size against a figure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from edgerazor.report.svg import INK, colour, dash, draw

Points = Sequence[tuple[float, float]]
_MOST_POINTS, _MOST_COLUMNS, _SHADES = 400, 120, 4


@dataclass(frozen=True)
class Frame:
    """What is around the values.

    Attributes:
        x, y: what is along the axes.
        wide: the largest over the smallest value from which on the axis of the values is logarithmic.
        key: `{name: index}` of colours, where no page around says whose they are.
        reference: a value that a dashed line stands for.
        size: width and height in inches.
    """

    x: str = "step"
    y: str = ""
    wide: float = 20.0
    key: Mapping[str, int] = field(default_factory=dict)
    reference: float | None = None
    size: tuple[float, float] = (4.6, 2.9)


STEPS = Frame()


@dataclass(frozen=True)
class Series:
    """A line or a point of a picture; `index` gives it the colour that its run has everywhere."""

    index: int
    name: str
    points: Points


def curves(series: Sequence[Series], *, name: str, label: str, frame: Frame = STEPS, dots: bool = False) -> str:
    """Lines over a common axis; with `dots` where values belong to whole numbers on it."""

    def plot(axes: Any) -> None:
        for line in series:
            xs, ys = zip(*_thinned(line.points), strict=True)
            marker = "o" if dots or len(xs) == 1 else None
            look = {"color": colour(line.index), "linestyle": dash(line.index), "marker": marker}
            axes.plot(xs, ys, linewidth=1.5, markersize=3, **look)
        if dots:
            _whole_numbers(axes.xaxis)
        _frame(axes, frame, [value for line in series for _, value in line.points])

    return draw(plot, name=name, label=label, size=frame.size)


def points(series: Sequence[Series], *, name: str, label: str, frame: Frame) -> str:
    """Points with names beside them."""

    def plot(axes: Any) -> None:
        for number, single in enumerate(sorted(series, key=lambda single: single.points[0])):
            above = number % 2 == 0  # names of neighbours do not stand in each other's way
            for place in single.points:
                axes.plot(*place, "o", color=colour(single.index), markersize=6)
                offset = (0, 6 if above else -12)
                axes.annotate(single.name, place, textcoords="offset points", xytext=offset, ha="center", fontsize=8)
        axes.margins(x=0.25, y=0.2)
        _scale(axes, "x", [value for single in series for value, _ in single.points], 3.0)
        _frame(axes, frame, [value for single in series for _, value in single.points])

    return draw(plot, name=name, label=label, size=frame.size)


def choices(history: Sequence[tuple[float, Mapping[int, float]]], *, index: int, name: str, label: str) -> str:
    """Over steps, the share of batches in which each layer was chosen, as the depth of the colour.

    Args:
        history: step and `{layer: share}`, by step.
        index: gives the colour.
    """
    columns = _columns(history)
    known = {layer for _, shares in history for layer in shares}
    layers = sorted({layer for _, shares in history for layer, share in shares.items() if share > 0})

    def plot(axes: Any) -> None:
        for layer in layers:
            for start, width, shade in _blocks(columns, layer):
                axes.broken_barh(
                    [(start, width)], (layer - 0.45, 0.9), color=colour(index), alpha=shade / _SHADES, lw=0
                )
        axes.set(xlabel="step", ylabel="layer of the teacher", xlim=(columns[0][0], columns[-1][1]))
        axes.set_ylim(0.5 if layers[0] else -0.5, max(known) + 0.5)
        _whole_numbers(axes.yaxis)

    return draw(plot, name=name, label=label, size=STEPS.size)


def _columns(history: Sequence[tuple[float, Mapping[int, float]]]) -> list[tuple[float, float, Mapping[int, float]]]:
    """Start, end and shares of as many stretches of steps as can be told apart; a log speaks of the steps before it."""
    taken = -(-len(history) // _MOST_COLUMNS)
    found, start = list[tuple[float, float, Mapping[int, float]]](), 0.0
    for first in range(0, len(history), taken):
        part = history[first : first + taken]
        layers = {layer for _, shares in part for layer in shares}
        means = {layer: sum(shares.get(layer, 0.0) for _, shares in part) / len(part) for layer in layers}
        found.append((start, part[-1][0], means))
        start = part[-1][0]
    return found


def _blocks(columns: Sequence[tuple[float, float, Mapping[int, float]]], layer: int) -> list[tuple[float, float, int]]:
    """Start, width and shade of the stretches in which a layer was chosen about as often."""
    blocks: list[list[float]] = []
    for start, end, shares in columns:
        shade = -int(-shares.get(layer, 0.0) * _SHADES // 1)
        if blocks and blocks[-1][2] == shade and blocks[-1][1] == start:
            blocks[-1][1] = end
        else:
            blocks.append([start, end, shade])
    return [(start, end - start, int(shade)) for start, end, shade in blocks if shade and end > start]


def _thinned(values: Points) -> Points:
    every = -(-len(values) // _MOST_POINTS)
    return [*values[:-1:every], values[-1]] if len(values) > 1 else values


def _frame(axes: Any, frame: Frame, values: Sequence[float]) -> None:
    axes.set(xlabel=frame.x, ylabel=frame.y)
    _scale(axes, "y", values, frame.wide)
    if frame.reference is not None:
        axes.axhline(frame.reference, color=INK, linewidth=0.8, linestyle="--")
    if frame.key:
        from matplotlib.lines import Line2D

        axes.legend(handles=[Line2D([], [], color=colour(index), label=name) for name, index in frame.key.items()])


def _scale(axes: Any, axis: str, values: Sequence[float], wide: float) -> None:
    """A logarithmic axis where the values differ widely, with plain numbers on it."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    if min(values) > 0 and max(values) / min(values) >= wide:
        getattr(axes, f"set_{axis}scale")("log")
        ticks = getattr(axes, f"{axis}axis")
        ticks.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if max(values) / min(values) < 300 else (1.0,)))
        ticks.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        ticks.set_minor_formatter(NullFormatter())


def _whole_numbers(axis: Any) -> None:
    from matplotlib.ticker import MaxNLocator

    axis.set_major_locator(MaxNLocator(integer=True))
