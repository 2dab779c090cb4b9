"""Cross-conformal p-values: every image fits and calibrates, so that of a small set none is wasted.

Vovk: Cross-conformal predictors, Annals of Mathematics and Artificial Intelligence 74, 2015; with as many folds as
images it is the jackknife+ of Barber, Candès, Ramdas, Tibshirani: Predictive inference with the jackknife+, Annals of
Statistics 49(1), 2021. The n images are dealt into K folds. Image i of fold k has the score s_i of a fit without fold
k, and a new image is scored by each of the K fits:

    p = (1 + Σ_k #{i in fold k: s_i ≥ s_k(new)}) / (n + 1).

What is proven is weaker than for images held out: P(p ≤ alpha) ≤ 2 alpha plus a little (see `proven_rate`). Where the
fits of the folds nearly agree, the rate is near alpha.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mood.core.errors import InputError
from mood.decisions.conformal import calibration_scores, check_alpha, false_alarm_range, inside
from mood.decisions.guarantee import Guarantee
from mood.decisions.ranks import above_and_equal, check_ties, ranks


def deal(count: int, folds: int) -> np.ndarray:
    """(count,) int64: the fold of each place, in stretches whose lengths differ by at most one.

    Raises:
        InputError: fewer than 2 folds, or more than images.
    """
    if not 2 <= folds <= count:
        raise InputError(f"folds is {folds}; a whole number from 2 to the number of images, {count}, was expected")
    return np.arange(count, dtype=np.int64) * folds // count


def proven_rate(alpha: float, n: int, folds: int) -> float:
    """The false-alarm rate that is proven for any score, on average over draws of the n images.

    The weighted mean of the folds' own p-values is (K + Σ_k c_k) / (n + K), and a mean of p-values is at most twice
    too small (Rüschendorf 1982; Vovk & Wang, Biometrika 107, 2020): 2 (K − 1 + alpha (n+1)) / (n + K). For folds of
    one size also 2 alpha + (1 − K/n) / (K + 1), theorem 4 of Barber et al., which for K = n is 2 alpha.

    Args:
        alpha: the level, inside (0, 1).
        n: number of images.
        folds: K, in 2 … n.
    """
    by_mean = 2 * (folds - 1 + inside("alpha", alpha) * (n + 1)) / (n + folds)
    by_tournament = 2 * alpha + (1 - folds / n) / (folds + 1) if n % folds == 0 else 1.0
    return min(1.0, by_mean, by_tournament)


@dataclass(frozen=True, slots=True, eq=False, init=False)
class Cross:
    """The scores of n ID images, each by the fit that has not seen its fold.

    Attributes:
        scores: (n,) finite float64, by fold, ascending within each.
        folds: (n,) int64, 0 … K − 1, ascending.
        ties: what becomes of equal scores.
    """

    scores: np.ndarray
    folds: np.ndarray
    ties: str

    def __init__(self, scores: Any, folds: Any, *, ties: str = "conservative") -> None:
        """Check and sort once.

        Args:
            scores: (n,) in any order, higher = more OOD.
            folds: (n,) the fold of each, from 0; none is empty.
            ties: `conservative` or `randomised`.

        Raises:
            InputError: no scores, one that is not finite, folds of another number, or fewer than two of them.
        """
        values, places = calibration_scores(scores), np.asarray(folds)
        if places.shape != values.shape or places.dtype.kind not in "iu":
            raise InputError(f"folds must be one whole number for each of {len(values)} scores, not {places.shape}")
        present = np.unique(places)
        if len(present) < 2 or not np.array_equal(present, np.arange(len(present))):
            raise InputError(f"folds must be numbered from 0 without a gap, at least two of them, not {present[:9]}")
        order = np.lexsort((values, places))
        object.__setattr__(self, "scores", values[order])
        object.__setattr__(self, "folds", places[order].astype(np.int64))
        object.__setattr__(self, "ties", check_ties(ties))

    def __len__(self) -> int:
        """The number n of images."""
        return len(self.scores)

    @property
    def count(self) -> int:
        """The number K of folds."""
        return int(self.folds[-1]) + 1

    def p_values(self, scores: Any, *, classes: Any = None, ids: Sequence[str] | None = None) -> np.ndarray:
        """How unusual each image is among the n, fold by fold.

        Args:
            scores: (N, K), the score of each image by the fit without each fold.
            classes: not looked at.
            ids: names of the images, which randomised ties draw their lots from.

        Returns:
            (N,) float64 in [1/(n+1), 1]; small = OOD.

        Raises:
            InputError: another shape, NaN, or ids are needed and missing.
        """
        table = np.asarray(scores, np.float64)
        if table.ndim != 2 or table.shape[1] != self.count:
            raise InputError(f"scores must be (N, {self.count}), one for each fold's fit, not {table.shape}")
        if np.isnan(table).any():
            raise InputError(f"{int(np.isnan(table).any(1).sum())} of {len(table)} images have a score that is nan")
        above, equal = np.zeros((2, len(table)), np.int64)
        edges = np.searchsorted(self.folds, np.arange(self.count + 1))
        for fold in range(self.count):
            higher, same = above_and_equal(self.scores[edges[fold] : edges[fold + 1]], table[:, fold], self.ties)
            above += higher
            equal += same
        return ranks(above, equal, self.ties, ids) / (len(self) + 1)

    def threshold(self, alpha: float) -> None:
        """There is no one threshold: every fold's fit has its own scores."""

    def check(self, alpha: float) -> None:
        """Refuse an alpha that n images cannot keep; see `check_alpha`."""
        check_alpha(alpha, len(self))

    def guarantee(self, alpha: float) -> Guarantee:
        """What is proven, beside the level."""
        proven = proven_rate(alpha, len(self), self.count)
        return Guarantee(
            rate=proven,
            confidence=None,
            realised=None,
            smallest=1 / (len(self) + 1),
            sentence=f"about {alpha:.1%} of known images where the {self.count} folds' fits agree; proven, for any "
            f"score, is at most {proven:.1%} on average over calibration sets (2 alpha, and a little for the folds)",
        )

    def allowed(self, alpha: float, n_test: int, confidence: float = 0.99) -> tuple[float, float]:
        """From 0 to what n held-out images would allow at the proven rate: how the rate spreads is not known."""
        proven = min(proven_rate(alpha, len(self), self.count), 1 - 1e-9)
        return 0.0, false_alarm_range(proven, len(self), n_test, confidence)[1]
