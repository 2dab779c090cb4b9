"""Draws promise.svg beside this file: from a score to a p-value, and how far one calibration set may be from alpha.

    python docs/guide/promise_picture.py

Nothing in it is measured: scores are generated, and the curves are Beta densities.
"""

import math
import sys
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mood.decisions import Conditional, Conformal

KNOWN, ALARM, INK, OTHERS = "#0072b2", "#d55e00", "#101010", ("#56b4e9", "#0072b2", "#004a75")
ALPHA = 0.05


def from_score_to_p_value(axes: Axes) -> None:
    """Calibration scores, the threshold, and one new image."""
    scores = np.random.default_rng(8).gamma(9, 1, 99)
    calibration = Conformal(scores)
    threshold, new = calibration.threshold(ALPHA), float(np.sort(scores)[-3]) - 0.05
    p = float(calibration.p_values([new])[0])
    axes.hist(scores, np.arange(2, 22, 1.0), color=KNOWN, alpha=0.3, edgecolor="white")
    axes.plot(scores, np.full(99, -0.6), "|", color=KNOWN, markersize=7, alpha=0.7)
    above = scores[scores >= new]
    axes.plot(above, np.full(len(above), -0.6), "|", color=ALARM, markersize=9, markeredgewidth=2)
    axes.axvline(threshold, color=ALARM, linestyle=(0, (5, 2)), linewidth=1.3)
    axes.annotate("flagged →", (threshold, 17.4), xytext=(4, 0), textcoords="offset points", color=ALARM, va="top")
    axes.annotate(
        f"a new image: {len(above)} of 99\nscore as high, p = {p:g}",
        (new, 0.15),
        xytext=(new - 0.6, 8.2),
        arrowprops={"arrowstyle": "->", "color": INK},
    )
    axes.set_xlabel("score of 99 calibration images, higher = more unusual")
    axes.set_yticks([])
    axes.set_ylim(-1.3, 18)
    axes.set_title("p is a rank among images that nothing has seen")


def one_set_of_many(axes: Axes) -> None:
    """Densities of the false-alarm rate that one calibration set gives."""
    rates = np.linspace(1e-4, 0.14, 800)
    for n, colour in zip((50, 200, 1000), OTHERS, strict=True):
        k = math.floor(ALPHA * (n + 1))
        axes.plot(100 * rates, density(rates, k, n + 1 - k), color=colour, label=f"marginal, n = {n}")
    k = Conditional(np.arange(1000.0)).flagged_ranks(ALPHA)
    tight = density(rates, k, 1001 - k)
    axes.plot(100 * rates, tight, color=ALARM, label="conditional, n = 1000")
    axes.fill_between(100 * rates, tight, color=ALARM, alpha=0.12)
    axes.axvline(100 * ALPHA, color=INK, linewidth=1, linestyle=(0, (5, 2)))
    axes.annotate("alpha", (100 * ALPHA, 79), xytext=(4, 0), textcoords="offset points", va="top")
    axes.set_xlabel("false-alarm rate that one calibration set gives, %")
    axes.set_yticks([])
    axes.set_ylim(0, 80)
    axes.legend(frameon=False, loc="center right")
    axes.set_title("on average at most alpha; yours lies near it")


def density(rates: np.ndarray, a: int, b: int) -> np.ndarray:
    """Of Beta(a, b)."""
    scale = math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b)
    found: np.ndarray = np.exp(scale + (a - 1) * np.log(rates) + (b - 1) * np.log1p(-rates))
    return found


def main(target: Path) -> None:
    """Draw both, side by side."""
    # The same bytes twice.
    with matplotlib.rc_context({"svg.hashsalt": "promise", "font.size": 9, "axes.titlesize": 10}):
        figure = Figure(figsize=(9.6, 3.2), layout="constrained")
        left, right = figure.subplots(1, 2)
        from_score_to_p_value(left)
        one_set_of_many(right)
        for axes in (left, right):
            axes.spines[["left", "right", "top"]].set_visible(False)
        figure.savefig(target, metadata={"Date": None})


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).with_name("promise.svg"))
