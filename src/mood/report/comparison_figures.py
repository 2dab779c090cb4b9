"""Figures of a comparison: they are drawn for the page and for files, so names are in them, as plain text."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from mood.report.figures import ALARM, DASHES, FAINT, ID, INK, SETS, TEXT, ScoreAxis, figure_of, thinned
from mood.report.markup import UNPRINTABLE

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BINS = 60
LONGEST_NAME = 34
"""Characters of a name that fit in a legend."""

LONGEST_LABEL = 48
"""Characters of a name that fit above bars; a phone shows them in larger letters."""

BAR, LABEL, GAP = 0.16, 0.19, 0.1
"""Inches of a bar, of the name above the bars of a row, and between rows."""


def distributions(known: np.ndarray, unknown: Mapping[str, np.ndarray], name: str) -> "Figure":
    """The share of images at each score, a line for ID and for each OOD set (Figure 2 of the paper).

    Args:
        known: (n,) scores of ID images, higher = more OOD.
        unknown: scores of OOD sets by name.
        name: of the ID set.
    """
    figure, axes = figure_of(4.6, 2.9)
    every = np.concatenate(list(unknown.values())) if unknown else known
    axis = ScoreAxis(known, every, float("inf"))
    edges = np.linspace(0, 1, BINS + 1)
    centres = (edges[1:] + edges[:-1]) / 2
    lines: list[tuple[str, np.ndarray, str, object, float]] = [(name, known, ID, DASHES[0], 2.2)]
    lines += [(title, scores, *_look(place), 1.4) for place, (title, scores) in enumerate(unknown.items())]
    for title, scores, colour, style, width in lines:
        heights = np.histogram(axis.place(scores), edges)[0] / max(1, len(scores))
        axes.plot(centres, heights, color=colour, linestyle=style, linewidth=width, label=plain(title))
    axes.set_xlim(0, 1)
    axes.set_ylim(0)
    axes.set_xticks(*axis.ticks())
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    axes.set_xlabel("score (asinh scale), higher = more OOD" if axis.stretched else "score, higher = more OOD")
    axes.set_ylabel("share of images")
    _legend(axes)
    return figure


def roc_lines(curves: Mapping[str, tuple[np.ndarray, np.ndarray]]) -> "Figure":
    """The share of OOD caught against the share of ID flagged, a line for each set or method.

    Args:
        curves: by name, the shares of ID and of OOD flagged.
    """
    figure, axes = figure_of(4.6, 3.6)
    axes.plot([0, 1], [0, 1], color=FAINT, linewidth=1, linestyle=DASHES[1])
    for place, (title, (across, up)) in enumerate(curves.items()):
        colour, style = _look(place)
        kept = thinned(across, up)
        axes.plot(across[kept], up[kept], color=colour, linestyle=style, linewidth=1.6, label=plain(title))
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1)
    for set_ticks in (axes.set_xticks, axes.set_yticks):
        set_ticks([0, 0.25, 0.5, 0.75, 1], ["0", "25", "50", "75", "100 %"])
    axes.set_xlabel("ID images flagged")
    axes.set_ylabel("OOD images caught")
    _legend(axes)
    return figure


def confusion_bars(cells: Sequence[str], counts: Mapping[str, Sequence[float]]) -> "Figure":
    """Numbers of OOD images that are accepted, for chosen pairs of classes (Figure 3 of the paper).

    Args:
        cells: "OOD class → ID class" each.
        counts: by method, one number for each cell; the rival first.
    """
    return _bars(cells, counts, "OOD images accepted at 95 % TPR", "{:.0f}")


def task_bars(tasks: Sequence[str], values: Mapping[str, Sequence[float | None]]) -> "Figure":
    """AUROC of each task, a bar for each method (Figure 1 of the paper).

    Args:
        tasks: names of the tasks.
        values: by method, percent for each task; None where there is none. A method without any is not in the legend.
    """
    return _bars(tasks, values, "AUROC (%)", "{:.1f}")


def plain(name: str, longest: int = LONGEST_NAME) -> str:
    """A name as a figure can show it: printable and short; a leading underscore would hide it from a legend."""
    shown = UNPRINTABLE.sub("\ufffd", name)
    shown = shown if len(shown) <= longest else f"{shown[: longest - 1]}…"
    return f"\u200b{shown}" if shown.startswith("_") else shown


def _bars(rows: Sequence[str], values: Mapping[str, Sequence[float | None]], label: str, number: str) -> "Figure":
    """Bars by row, the row's name above them, where it has the whole width; each method keeps its colour."""
    colours = (FAINT, ID, *SETS, ALARM)
    drawn = [
        (method, numbers, colours[place % len(colours)])
        for place, (method, numbers) in enumerate(values.items())
        if any(value is not None for value in numbers)
    ]
    inches = LABEL + BAR * len(drawn) + GAP
    thick, top = BAR / inches, LABEL / inches - 0.5
    figure, axes = figure_of(4.6, 0.8 + len(rows) * inches)
    for place, (method, numbers, colour) in enumerate(drawn):
        shown = [(row, value) for row, value in enumerate(numbers) if value is not None]
        at = [row + top + (place + 0.5) * thick for row, _ in shown]
        bars = axes.barh(at, [value for _, value in shown], thick, color=colour, label=plain(method))
        texts = axes.bar_label(bars, [number.format(value) for _, value in shown], padding=2, fontsize=TEXT - 1)
        for text in texts:
            text.set_color(INK)
    for row, name in enumerate(rows):
        axes.text(
            0,
            row + top - 0.03 / inches,
            plain(name, LONGEST_LABEL),
            transform=axes.get_yaxis_transform(),
            va="bottom",
            fontsize=TEXT,
            color=INK,
            parse_math=False,
        )
    axes.set_yticks([])
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_xlabel(label)
    axes.margins(x=0.12)
    _legend(axes)
    return figure


def _look(place: int) -> tuple[str, object]:
    return SETS[place % len(SETS)], DASHES[place // len(SETS) % len(DASHES)]


def _legend(axes: "Axes") -> None:
    legend = axes.legend(
        loc="lower left", bbox_to_anchor=(0, 1), ncols=2, frameon=False, fontsize=TEXT, labelcolor=INK, borderaxespad=0
    )
    for text in legend.get_texts():
        text.set_parse_math(False)
