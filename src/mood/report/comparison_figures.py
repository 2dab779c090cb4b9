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
"""Characters of a name that fit beside bars."""


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
        values: by method, percent for each task; None where there is none.
    """
    return _bars(tasks, values, "AUROC (%)", "{:.1f}")


def plain(name: str) -> str:
    """A name as a figure can show it: printable and short; a leading underscore would hide it from a legend."""
    shown = UNPRINTABLE.sub("\ufffd", name)
    shown = shown if len(shown) <= LONGEST_NAME else f"{shown[: LONGEST_NAME - 1]}…"
    return f"\u200b{shown}" if shown.startswith("_") else shown


def _bars(rows: Sequence[str], values: Mapping[str, Sequence[float | None]], label: str, number: str) -> "Figure":
    thick = 0.8 / max(1, len(values))
    figure, axes = figure_of(4.6, 0.8 + len(rows) * (0.14 + 0.16 * len(values)))
    colours = (FAINT, ID, *SETS, ALARM)
    for place, (method, numbers) in enumerate(values.items()):
        shown = [(row, value) for row, value in enumerate(numbers) if value is not None]
        at = [row + (place - (len(values) - 1) / 2) * thick for row, _ in shown]
        bars = axes.barh(
            at, [value for _, value in shown], thick, color=colours[place % len(colours)], label=plain(method)
        )
        texts = axes.bar_label(bars, [number.format(value) for _, value in shown], padding=2, fontsize=TEXT - 1)
        for text in texts:
            text.set_color(INK)
    axes.set_yticks(range(len(rows)), [plain(row) for row in rows], parse_math=False)
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
