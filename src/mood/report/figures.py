"""Figures as inline SVG: they take their colours from the page, so that they follow its light and dark.

Drawn by matplotlib's object interface; no global state of pyplot is touched. No name that a user chose is drawn here:
legends are HTML.
"""

import io
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from mood.report.markup import Html, text

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, FAINT, ALARM, ID = "#101010", "#b0b0b0", "#d55e00", "#0072b2"
SETS = ("#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#6b6b6b")
"""Okabe and Ito's colours, which colour-blind people tell apart; vermillion means flagged and blue means ID."""

VARIABLES = {
    INK: "--ink",
    FAINT: "--faint",
    ALARM: "--alarm",
    ID: "--id",
    **{colour: f"--set-{position}" for position, colour in enumerate(SETS)},
}
"""The variable of the page that stands for each colour."""

DASHES = ("solid", (0, (5, 2)), (0, (1.5, 1.5)))
"""Line styles for the second and third time that a colour comes round."""

BINS = 48
"""Bars of a score histogram."""

POINTS = 300
"""Steps of a curve that can be told apart at the size it is shown."""

TEXT = 8.5
"""Points; figures are 4.4 inches wide, which is about how wide they are shown."""


def set_variable(position: int) -> str:
    """The page's colour variable of the OOD set at a position."""
    return VARIABLES[SETS[position % len(SETS)]]


def is_dashed(position: int) -> bool:
    """Whether the OOD set at a position shares its colour with an earlier one and is drawn with dashes."""
    return position >= len(SETS)


def score_histogram(id_scores: np.ndarray, ood_scores: np.ndarray, threshold: float, position: int) -> Html:
    """How the scores of ID and of one OOD set are spread, and where flagging starts.

    What lies beyond the central 99.5 % of both sets is counted in the outermost bars. Where OOD reaches much further
    than ID, the axis is stretched by asinh around the ID scores, so that both can be seen.

    Args:
        id_scores: (n_id,) higher = more OOD.
        ood_scores: (n_ood,).
        threshold: an image is flagged above it; +inf where nothing is.
        position: of the OOD set, for its colour.
    """
    figure, axes = figure_of(4.4, 2.35)
    axis = ScoreAxis(id_scores, ood_scores, threshold)
    edges = np.linspace(0, 1, BINS + 1)
    for scores, colour in ((id_scores, ID), (ood_scores, SETS[position % len(SETS)])):
        heights = np.histogram(axis.place(scores), edges)[0] / len(scores)
        axes.stairs(heights, edges, fill=True, color=colour, alpha=0.35, clip_on=False)
        axes.stairs(np.where(heights > 0, heights, np.nan), edges, color=colour, linewidth=1.4, clip_on=False)
    axes.set_xlim(0, 1)
    top = axes.get_ylim()[1] * 1.12
    axes.set_ylim(0, top)
    if np.isfinite(threshold):
        line = float(axis.place(np.array([threshold]))[0])
        axes.plot([line, line], [0, top], color=ALARM, linewidth=1.3, linestyle=DASHES[1], clip_on=False)
        right = line < 0.75
        axes.annotate(
            "flagged →" if right else "flagged",
            (line, top),
            xytext=(4 if right else -4, -1),
            textcoords="offset points",
            ha="left" if right else "right",
            va="top",
            color=ALARM,
            fontsize=TEXT,
        )
    axes.set_xticks(*axis.ticks())
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    axes.set_xlabel("score (asinh scale), higher = more OOD" if axis.stretched else "score, higher = more OOD")
    return as_svg(figure, "Histogram of the scores of ID images and of this OOD set, with the threshold")


def roc_curves(curves: Sequence[tuple[int, np.ndarray, np.ndarray]], operating: Sequence[tuple[float, float]]) -> Html:
    """The share of OOD caught against the share of ID flagged.

    Args:
        curves: for each OOD set its position (for its colour), shares of ID flagged and shares of OOD flagged.
        operating: the point at which the detector works, one for each curve.
    """
    from matplotlib.patches import Ellipse

    figure, axes = figure_of(4.4, 3.6)
    axes.plot([0, 1], [0, 1], color=FAINT, linewidth=1, linestyle=DASHES[1], clip_on=False)
    for (position, flagged_id, flagged_ood), point in zip(curves, operating, strict=True):
        colour, style = SETS[position % len(SETS)], DASHES[position // len(SETS) % len(DASHES)]
        kept = thinned(flagged_id, flagged_ood)
        axes.plot(flagged_id[kept], flagged_ood[kept], color=colour, linewidth=1.7, linestyle=style, clip_on=False)
        axes.add_patch(Ellipse(point, 0.03, 0.03 * 4.4 / 3.6, color=colour, clip_on=False))
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1)
    for set_ticks in (axes.set_xticks, axes.set_yticks):
        set_ticks([0, 0.25, 0.5, 0.75, 1], ["0", "25", "50", "75", "100 %"])
    axes.set_xlabel("ID images flagged")
    axes.set_ylabel("OOD images caught")
    return as_svg(figure, "ROC curves, one for each OOD set, with the point at which the detector works")


def p_value_histogram(p_values: np.ndarray, alpha: float) -> Html:
    """How the p-values of unseen ID images are spread: evenly, if the promise holds.

    Args:
        p_values: (N,) of ID images.
        alpha: what is flagged.
    """
    from matplotlib.patches import Rectangle

    figure, axes = figure_of(4.4, 3.6)
    bins = 20 if len(p_values) >= 100 else 10
    heights = np.histogram(p_values, bins, (0, 1))[0] * bins / len(p_values)
    top = max(1.5, 1.15 * float(heights.max()))
    axes.add_patch(Rectangle((0, 0), alpha, top, color=ALARM, alpha=0.2, linewidth=0, clip_on=False))
    axes.stairs(heights, np.linspace(0, 1, bins + 1), fill=True, color=ID, alpha=0.35, clip_on=False)
    axes.stairs(heights, np.linspace(0, 1, bins + 1), color=ID, linewidth=1.4, clip_on=False)
    axes.plot([0, 1], [1, 1], color=INK, linewidth=1.2, linestyle=DASHES[1], clip_on=False)
    axes.annotate(
        f"← flagged, p ≤ {alpha:g}",
        (alpha, top),
        xytext=(4, -2),
        textcoords="offset points",
        va="top",
        color=ALARM,
        fontsize=TEXT,
    )
    axes.annotate(
        "even", (1, 1), xytext=(-2, 3), textcoords="offset points", ha="right", va="bottom", color=INK, fontsize=TEXT
    )
    axes.set_xlim(0, 1)
    axes.set_ylim(0, top)
    axes.set_xticks([0, 0.25, 0.5, 0.75, 1], ["0", "0.25", "0.5", "0.75", "1"])
    axes.set_xlabel("p-value of unseen ID images")
    axes.set_ylabel("images, relative to even")
    return as_svg(figure, "Histogram of the p-values of unseen ID images, with the even spread and the flagged part")


def evidence_curve(images: np.ndarray, log10_evidence: np.ndarray, level: float, alarm: int | None) -> Html:
    """The capital of a monitor over the images of its stream, and the height at which it alarms.

    Args:
        images: (n,) number of images judged at each point.
        log10_evidence: (n,) of the capital there.
        level: it alarms at 1/level.
        alarm: position of the image at which it did; None if it has not.
    """
    figure, axes = figure_of(6.2, 2.8)
    limit = -np.log10(level)
    axes.plot(images, log10_evidence, color=ID, linewidth=1.7, clip_on=False)
    axes.axhline(limit, color=ALARM, linewidth=1.2, linestyle=DASHES[1])
    axes.axhline(0, color=FAINT, linewidth=1, linestyle=DASHES[2])
    axes.annotate(
        f"alarm at 1/{level:g}",
        (0, limit),
        xytext=(4, 3),
        textcoords="offset points",
        va="bottom",
        color=ALARM,
        fontsize=TEXT,
    )
    if alarm is not None:
        axes.axvline(alarm, color=ALARM, linewidth=1.2)
    axes.set_xlim(0, max(1, int(images[-1])))
    low, high = min(0.0, float(log10_evidence.min())), max(limit, float(log10_evidence.max()))
    axes.set_ylim(low - 0.05 * (high - low), high + 0.15 * (high - low))
    axes.set_xlabel("images of the stream")
    axes.set_ylabel("evidence, power of ten")
    return as_svg(figure, "Evidence against the stream being as the calibration images are, and where it alarms")


class ScoreAxis:
    """Where a score stands between the left (0) and the right (1) end of a histogram."""

    def __init__(self, id_scores: np.ndarray, ood_scores: np.ndarray, threshold: float) -> None:
        known, unknown = (scores[np.isfinite(scores)] for scores in (id_scores, ood_scores))
        marks = [threshold] if np.isfinite(threshold) else []
        for scores in (known, unknown):
            if len(scores):
                marks.extend(np.quantile(scores, (0.0025, 0.9975)))
        low, high = (min(marks), max(marks)) if marks else (0.0, 0.0)
        if low == high:
            low, high = low - max(0.5, abs(low) / 2), high + max(0.5, abs(high) / 2)
        reference = known if len(known) else np.array([low, high])
        self._centre = float(np.median(reference))
        self._width = float(np.ptp(np.quantile(reference, (0.05, 0.95)))) / 2
        self.stretched = self._width > 0 and high - low > 16 * self._width
        self._ends = tuple(self._bent(np.array([low, high])))
        self._low, self._high = float(low), float(high)

    def place(self, scores: np.ndarray) -> np.ndarray:
        """Positions in [0, 1]; what lies outside stands at the ends."""
        low, high = self._ends
        return np.asarray((self._bent(np.clip(scores, self._low, self._high)) - low) / (high - low))

    def ticks(self) -> tuple[list[float], list[str]]:
        """Positions of round numbers, and the numbers."""
        from matplotlib.ticker import MaxNLocator

        if self.stretched:
            low, high = self._ends
            values = self._centre + self._width * np.sinh(np.linspace(low, high, 6))
            rounded = [float(f"{value:.1e}") for value in values]
        else:
            rounded = [float(value) for value in MaxNLocator(5).tick_values(self._low, self._high)]
        chosen = sorted({value for value in rounded if self._low <= value <= self._high})
        return self.place(np.array(chosen)).tolist(), [f"{value:.6g}" for value in chosen]

    def _bent(self, scores: np.ndarray) -> np.ndarray:
        return np.asarray(np.arcsinh((scores - self._centre) / self._width)) if self.stretched else scores


def figure_of(width: float, height: float) -> "tuple[Figure, Axes]":
    """A figure of so many inches with one pair of axes, in the page's ink on nothing."""
    from matplotlib.figure import Figure

    figure = Figure((width, height), layout="constrained")
    axes = figure.add_subplot()
    for part in (figure, axes):
        part.patch.set_visible(False)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(FAINT)
    axes.tick_params(length=0, labelsize=TEXT, labelcolor=INK, pad=4)
    for label in (axes.xaxis.label, axes.yaxis.label):
        label.set_fontsize(TEXT)
        label.set_color(INK)
    return figure, axes


def thinned(across: np.ndarray, up: np.ndarray) -> np.ndarray:
    """Which points of a curve that only rises to keep: those that move it by a visible step, and both ends."""
    steps = np.floor(POINTS * (across + up) / 2)
    kept = np.concatenate(([True], steps[1:] > steps[:-1]))
    kept[-1] = True
    return kept


def as_svg(figure: "Figure", label: str) -> Html:
    """The figure as an element of the page: without prologue, ids and colours of its own."""
    import matplotlib

    file = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "mood"}):
        figure.savefig(file, format="svg", metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")))
    drawn = file.getvalue()
    size = re.search(r'viewBox="[^"]*"', drawn)
    body = drawn[drawn.index("</defs>") + len("</defs>") :]
    body = re.sub(r' id="[^"]*"', "", body)
    body = re.sub(r"font-family: [^;\"]*;?", "", body)
    body = re.sub(r"\s*\n\s*", " ", body)
    for colour, variable in VARIABLES.items():
        body = body.replace(colour, f"var({variable})")
    return Html(f'<svg {size.group() if size else ""} role="img" aria-label="{text(label)}">{body}')
