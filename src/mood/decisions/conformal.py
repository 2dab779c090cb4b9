"""Split-conformal p-values: how unusual is a score among n scores of ID images that nothing was fitted on?

Vovk, Gammerman, Shafer: Algorithmic Learning in a Random World, 2005. Bates, Candès, Lei, Romano, Sesia: Testing for
Outliers with Conformal p-values, Annals of Statistics 51(1), 2023 (arXiv 2104.08279, 2021), for outlier detection.

The promise: if a new ID image and the calibration images are exchangeable, then P(p ≤ alpha) ≤ alpha, on average over
calibration sets and images. What one calibration set realises varies around k/(n+1), k = ⌊alpha (n+1)⌋, and
`Conformal.realised_range` says how much.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mood.core.errors import InputError, PromiseError
from mood.core.score_vector import score_vector
from mood.decisions.guarantee import Guarantee
from mood.decisions.ranks import above_and_equal, check_ties, ranks


@dataclass(frozen=True, slots=True, eq=False, init=False)
class Conformal:
    """The scores of n ID images that no stage of training or fitting has seen.

    Attributes:
        scores: (n,) finite float64, ascending, higher = more OOD.
        ties: what becomes of equal scores, `conservative` or `randomised` (see `mood.decisions.ranks`).
    """

    scores: np.ndarray
    ties: str

    def __init__(self, scores: Any, *, ties: str = "conservative") -> None:
        """Check and sort once.

        Args:
            scores: (n,) list, array or tensor in any order, higher = more OOD.
            ties: `conservative` or `randomised`.

        Raises:
            InputError: no scores, one that is not finite, or another word for ties.
        """
        object.__setattr__(self, "scores", np.sort(calibration_scores(scores)))
        object.__setattr__(self, "ties", check_ties(ties))

    def __len__(self) -> int:
        """The number n of calibration images."""
        return len(self.scores)

    def ranks(self, scores: Any, ids: Sequence[str] | None = None) -> np.ndarray:
        """The place of each score among the n, the most unusual first: (N,) int64 in 1 … n + 1; see `p_values`."""
        return ranks(*above_and_equal(self.scores, score_vector(scores, "scores"), self.ties), self.ties, ids)

    def p_values(self, scores: Any, *, classes: Any = None, ids: Sequence[str] | None = None) -> np.ndarray:
        """How unusual each score is among ID images: p = (1 + #{i: s_i ≥ s}) / (n + 1).

        Bates et al., equation 3, with the sign turned: here a high score is unusual. Of equal scores, where ties are
        randomised, a random number counts.

        Args:
            scores: (N,), higher = more OOD; +inf and -inf are the most and the least unusual.
            classes: not looked at: all classes share one calibration.
            ids: names of the images, which randomised ties draw their lots from.

        Returns:
            (N,) float64 in [1/(n+1), 1]; small = OOD.

        Raises:
            InputError: a score is NaN, which must not pass for an ordinary image; or ids are needed and missing.
        """
        return self.ranks(scores, ids) / (len(self) + 1)

    def threshold(self, alpha: float) -> float:
        """Where flagging starts: p ≤ alpha exactly for the scores above it, ties and rounding included.

        It is the k-th largest calibration score, k = ⌊alpha (n+1)⌋; +inf, so that nothing is flagged, where k = 0.
        Where ties are randomised, the lot decides on scores that equal it.

        Raises:
            InputError: alpha is not inside (0, 1).
        """
        k = flagged_ranks(alpha, len(self))
        return float(self.scores[len(self) - k]) if k else math.inf

    def check(self, alpha: float) -> None:
        """Refuse an alpha that these images cannot keep; see `check_alpha`."""
        check_alpha(alpha, len(self))

    def realised_range(self, alpha: float, confidence: float = 0.9) -> tuple[float, float]:
        """Where the false-alarm rate of this very calibration set lies, over all future ID images.

        Given the calibration set, the rate is Beta(k, n+1-k), k = ⌊alpha (n+1)⌋, for scores without ties (Vovk:
        Conditional validity of inductive conformal predictors, ACML 2012); ties only lower it.

        Args:
            alpha: the promised rate, inside (0, 1).
            confidence: probability of the central range, over calibration sets, inside (0, 1).

        Returns:
            (low, high), shares of ID images; (0, 0) where alpha is too small for n to flag anything.

        Raises:
            InputError: alpha or confidence is not inside (0, 1).
        """
        return realised_range(flagged_ranks(alpha, len(self)), len(self), confidence)

    def guarantee(self, alpha: float) -> Guarantee:
        """At most alpha on average over calibration sets, and where this one's rate lies."""
        low, high = self.realised_range(alpha)
        return Guarantee(
            rate=alpha,
            confidence=None,
            realised=(low, high),
            smallest=1 / (len(self) + 1),
            sentence=f"at most {alpha:.1%} of known images on average over calibration sets, {low:.1%} to {high:.1%} "
            "with this one (90 % confidence)",
        )

    def allowed(self, alpha: float, n_test: int, confidence: float = 0.99) -> tuple[float, float]:
        """Where the share of flagged images among unseen ID images lies; see `false_alarm_range`."""
        return false_alarm_range(alpha, len(self), n_test, confidence)


def calibration_scores(scores: Any) -> np.ndarray:
    """(n,) finite float64, n ≥ 1.

    Raises:
        InputError: no scores, or one that is not finite.
    """
    vector = score_vector(scores, "calibration scores", infinite=False)
    if not len(vector):
        raise InputError("there are no calibration scores; at least one ID image must be held out to calibrate on")
    return vector


def check_alpha(alpha: float, n_calibration: int) -> None:
    """Refuse an alpha that n images cannot keep: no p-value is smaller than 1/(n+1).

    Args:
        alpha: the promised rate, inside (0, 1).
        n_calibration: number of calibration images, ≥ 0.

    Raises:
        PromiseError: alpha < 1/(n+1), with the smallest alpha that n keeps and the number of images alpha needs.
        InputError: alpha is not inside (0, 1).
    """
    if flagged_ranks(alpha, n_calibration):
        return
    raise PromiseError(
        f"a false-alarm rate of {alpha:g} cannot be promised with {n_calibration} calibration images: no image could "
        f"ever be flagged. The smallest alpha that they keep is {1 / (1 + n_calibration):.4g}; {alpha:g} needs at "
        f"least {images_needed(alpha)} calibration images: bring more images, raise held_out, or raise alpha"
    )


def images_needed(alpha: float) -> int:
    """The smallest number of calibration images with which alpha can be kept: the first n with 1/(n+1) ≤ alpha.

    Raises:
        InputError: alpha is not inside (0, 1).
    """
    needed = max(1, math.ceil(1 / inside("alpha", alpha)) - 1)
    while not flagged_ranks(alpha, needed):
        needed += 1
    return needed


def false_alarm_range(alpha: float, n_calibration: int, n_test: int, confidence: float = 0.99) -> tuple[float, float]:
    """Where the share of flagged images among unseen ID images lies if the promise holds.

    The number of flagged images is beta-binomial(n_test, k, n_calibration+1-k), k = ⌊alpha (n_calibration+1)⌋, for
    scores without ties: both the calibration and the test images are a draw (Bates et al., section 2). Ties only
    lower it, so that with ties a share below the range breaks no promise.

    Args:
        alpha: the promised rate, inside (0, 1).
        n_calibration: number of calibration images, ≥ 1.
        n_test: number of unseen ID images, ≥ 1.
        confidence: the range holds the observed share with at least this probability, inside (0, 1).

    Returns:
        (low, high), both possible shares of n_test, in [0, 1]; (0, 0) where alpha is too small to flag anything.

    Raises:
        InputError: an argument is out of its range.
    """
    if n_calibration < 1:
        raise InputError(f"n_calibration is {n_calibration}; at least 1 image is needed")
    return observed_range(flagged_ranks(alpha, n_calibration), n_calibration, n_test, confidence)


def observed_range(k: int, n_calibration: int, n_test: int, confidence: float) -> tuple[float, float]:
    """The same of a threshold at the k-th largest of the calibration scores, 0 ≤ k ≤ n_calibration."""
    if n_test < 1:
        raise InputError(f"n_test is {n_test}; at least 1 image is needed")
    tail = (1 - inside("confidence", confidence)) / 2
    if not k:
        return 0.0, 0.0
    flagged = np.arange(n_test, dtype=np.float64)
    # P(x+1)/P(x) of the beta-binomial; the product is scaled by its largest term and then summed to one.
    ratios = (n_test - flagged) * (flagged + k) / ((flagged + 1) * (n_test - flagged + n_calibration - k))
    logs = np.concatenate(([0.0], np.cumsum(np.log(ratios))))
    cdf = np.cumsum(np.exp(logs - logs.max()))
    cdf /= cdf[-1]
    low, high = np.searchsorted(cdf, (tail, 1 - tail))
    return float(low / n_test), float(high / n_test)


def realised_range(k: int, n: int, confidence: float) -> tuple[float, float]:
    """The central range of Beta(k, n+1-k), the rate above the k-th largest of n scores; (0, 0) for k = 0."""
    tail = (1 - inside("confidence", confidence)) / 2
    if not k:
        return 0.0, 0.0
    return beta_quantile(tail, k, n + 1 - k), beta_quantile(1 - tail, k, n + 1 - k)


def inside(name: str, value: float) -> float:
    """A share that is neither 0 nor 1."""
    if not 0 < value < 1:
        raise InputError(f"{name} is {value}; it must lie between 0 and 1")
    return value


def flagged_ranks(alpha: float, n: int) -> int:
    """The largest k in 0..n with k/(n+1) ≤ alpha, compared as the floats that p-values are."""
    k = math.floor(inside("alpha", alpha) * (n + 1))
    while k / (n + 1) > alpha:
        k -= 1
    while (k + 1) / (n + 1) <= alpha:
        k += 1
    return k


def beta_quantile(probability: float, a: int, b: int) -> float:
    """The x with P(Beta(a, b) ≤ x) = probability, for whole a, b ≥ 1.

    P(Beta(a, b) > x) = P(Binomial(a+b-1, x) < a), which falls with x: bisected down to neighbouring floats.
    """
    trials = a + b - 1
    successes = np.arange(a, dtype=np.float64)
    log_ways = np.concatenate(([0.0], np.cumsum(np.log((trials - successes[:-1]) / successes[1:]))))
    low, high = 0.0, 1.0
    while low < (x := (low + high) / 2) < high:
        fewer = np.exp(log_ways + successes * math.log(x) + (trials - successes) * math.log1p(-x)).sum()
        low, high = (x, high) if fewer > 1 - probability else (low, x)
    return x
