"""Calibration-conditional p-values: a promise about this calibration set, not about the average over all of them.

Bates, Candès, Lei, Romano, Sesia: Testing for Outliers with Conformal p-values, Annals of Statistics 51(1), 2023
(arXiv 2104.08279, 2021), section 3. A marginal p-value k/(n+1) becomes a level b_k, where b_1 ≤ … ≤ b_n ≤ 1 = b_{n+1}
are such that the ordered uniform draws U_(1) ≤ … ≤ U_(n) satisfy

    P(U_(1) ≤ b_1, …, U_(n) ≤ b_n) ≥ confidence.

The share of future ID images whose score is among the k highest is U_(k). So with that probability over calibration
sets, P(p ≤ t | calibration set) ≤ t at all levels t at once; given such a set, p-values of several images are
independent. The price is power: at the same alpha fewer ranks are flagged.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from mood.core.errors import InputError, PromiseError
from mood.decisions.conformal import Conformal, inside, observed_range, realised_range
from mood.decisions.guarantee import Guarantee

BOUNDS = ("simes", "dkwm", "monte-carlo")
WORDS = {"simes": "Simes", "dkwm": "DKWM", "monte-carlo": "Monte Carlo"}

DRAWS = 10_000
"""Simulated calibration sets behind a Monte-Carlo level, fewer where they are large …"""
NUMBERS = 20_000_000
"""… so that no more numbers than these are drawn …"""
FEWEST = 1000
"""… but never fewer sets than these."""
AT_ONCE = 2_000_000
"""Numbers in memory at a time."""
LARGEST = 10_000_000
"""Images beyond which no promise is looked for."""


@lru_cache(maxsize=32)
def levels(n: int, confidence: float, bound: str) -> np.ndarray:
    """The p-value of each rank.

    Args:
        n: number of calibration images, ≥ 1.
        confidence: 1 − δ, inside (0, 1).
        bound: "simes": b_{n+1−i} = 1 − δ^{1/k} (i ⋯ (i−k+1) / (n ⋯ (n−k+1)))^{1/k} with k = n/2, sharpest for small
            p-values; "dkwm": b_i = i/n + √(log(2/δ) / 2n), of Dvoretzky, Kiefer, Wolfowitz and Massart;
            "monte-carlo": b_i = i/n + c √(i(n−i)) / (n√n), with the c that simulated sets ask for.

    Returns:
        (n+1,) float64, ascending, the last one 1; not to be written to.

    Raises:
        InputError: another bound, confidence outside (0, 1), or one that the simulation cannot resolve.
    """
    delta = 1 - inside("confidence", confidence)
    ranks = np.arange(1, n + 1, dtype=np.float64)
    if bound == "simes":
        k = max(1, n // 2)
        factorials = np.concatenate(([0.0], np.cumsum(np.log(ranks))))  # log 0!, log 1!, …, log n!
        low = np.arange(n, 0, -1)  # i of b_{n+1−i}, for the ranks 1 … n
        ways = factorials[low] - factorials[np.maximum(low - k, 0)] - factorials[n] + factorials[n - k]
        found = np.where(low >= k, -np.expm1((math.log(delta) + ways) / k), 1.0)
    elif bound == "dkwm":
        found = ranks / n + math.sqrt(math.log(2 / delta) / (2 * n))
    elif bound == "monte-carlo":
        found = ranks / n + _slack(n, confidence) * np.sqrt(ranks * (n - ranks)) / (n * math.sqrt(n))
    else:
        raise InputError(f"bound is {bound!r}; {', '.join(BOUNDS)} were expected")
    # The levels of a later rank are never below those of an earlier one, whatever the formula's own shape.
    result = np.concatenate((np.minimum(np.maximum.accumulate(found), 1.0), [1.0]))
    result.flags.writeable = False
    return result


def _slack(n: int, confidence: float) -> float:
    """The c for which all U_(i) ≤ i/n + c √(i(n−i)) / (n√n) in a share `confidence` of simulated sets.

    It is the ⌈confidence (B+1)⌉-th smallest of B values of the largest standardised excess, as in split conformal
    prediction: the promise holds over the simulation and the calibration set together, not only as B grows.
    """
    if n == 1:
        return 0.0
    draws = max(FEWEST, min(DRAWS, NUMBERS // n))
    place = math.ceil(confidence * (draws + 1))
    if place > draws:
        raise InputError(
            f"a confidence of {confidence:g} cannot be simulated with {draws} draws; take the bound simes or dkwm"
        )
    ranks = np.arange(1, n, dtype=np.float64)
    scale = np.sqrt(ranks * (n - ranks)) / (n * math.sqrt(n))
    generator = np.random.default_rng(0)
    excess = np.empty(draws)
    step = max(1, AT_ONCE // n)
    for start in range(0, draws, step):
        # Ordered uniforms are partial sums of exponentials over their total.
        sums = np.cumsum(generator.standard_exponential((min(step, draws - start), n + 1)), axis=1)
        ordered = sums[:, : n - 1] / sums[:, -1:]
        excess[start : start + step] = ((ordered - ranks / n) / scale).max(1)
    return float(np.partition(excess, place - 1)[place - 1])


def images_needed(alpha: float, confidence: float, bound: str) -> int:
    """The smallest number of calibration images that promise alpha with this confidence.

    Raises:
        PromiseError: not even `LARGEST` images would do.
    """
    if bound == "dkwm":
        # 1/n + √(c/n) ≤ alpha is a quadratic in 1/√n.
        root = math.sqrt(math.log(2 / (1 - confidence)) / 2)
        near = (2 / (math.sqrt(root * root + 4 * alpha) - root)) ** 2
        low, high = max(0, int(near) - 2), math.ceil(near) + 2
    else:
        low, high = 0, 1
    while high <= LARGEST and bound != "dkwm" and levels(high, confidence, bound)[0] > alpha:
        low, high = high, 2 * high
    if high > LARGEST:
        raise PromiseError(f"{alpha:g} with {confidence:g} confidence would need more than {LARGEST} images")
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if levels(middle, confidence, bound)[0] <= alpha else (middle, high)
    return high


@dataclass(frozen=True, slots=True, eq=False, init=False)
class Conditional:
    """p-values that hold for this calibration set with a stated confidence.

    Attributes:
        marginal: the calibration scores with their ranks.
        confidence: the probability, over calibration sets, with which the promise holds.
        bound: how the levels are found, one of `BOUNDS`.
        levels: (n+1,) float64, the p-value of each rank.
    """

    marginal: Conformal
    confidence: float
    bound: str
    levels: np.ndarray

    def __init__(
        self, scores: Any, *, confidence: float = 0.9, bound: str = "simes", ties: str = "conservative"
    ) -> None:
        """Check, sort and find the levels once.

        Args:
            scores: (n,) in any order, higher = more OOD.
            confidence: inside (0, 1).
            bound: "simes", "dkwm" or "monte-carlo"; see `levels`.
            ties: `conservative` or `randomised`.

        Raises:
            InputError: no scores, one that is not finite, or an argument out of its range.
        """
        marginal = Conformal(scores, ties=ties)
        object.__setattr__(self, "marginal", marginal)
        object.__setattr__(self, "confidence", confidence)
        object.__setattr__(self, "bound", bound)
        object.__setattr__(self, "levels", levels(len(marginal), confidence, bound))

    @property
    def scores(self) -> np.ndarray:
        """(n,) finite float64, ascending."""
        return self.marginal.scores

    @property
    def ties(self) -> str:
        """What becomes of equal scores."""
        return self.marginal.ties

    def __len__(self) -> int:
        """The number n of calibration images."""
        return len(self.marginal)

    def p_values(self, scores: Any, *, classes: Any = None, ids: Sequence[str] | None = None) -> np.ndarray:
        """The level of each score's rank; arguments and errors as in `Conformal.p_values`."""
        found: np.ndarray = self.levels[self.marginal.ranks(scores, ids) - 1]
        return found

    def threshold(self, alpha: float) -> float:
        """The k-th largest calibration score, k the number of levels up to alpha; +inf where there is none."""
        k = self.flagged_ranks(alpha)
        return float(self.scores[len(self) - k]) if k else math.inf

    def flagged_ranks(self, alpha: float) -> int:
        """How many ranks have a p-value up to alpha."""
        return int(np.searchsorted(self.levels[:-1], inside("alpha", alpha), side="right"))

    def check(self, alpha: float) -> None:
        """Refuse an alpha below the smallest level.

        Raises:
            PromiseError: with the smallest alpha that these images keep, and the number of images alpha needs.
            InputError: alpha is not inside (0, 1).
        """
        if self.flagged_ranks(alpha):
            return
        raise PromiseError(
            f"a false-alarm rate of {alpha:g} cannot be promised for this calibration set with {self.confidence:.4g} "
            f"confidence: with {len(self)} calibration images the smallest p-value by {WORDS[self.bound]} is "
            f"{self.levels[0]:.4g}; {alpha:g} needs at least "
            f"{images_needed(alpha, self.confidence, self.bound)} calibration images: bring more images, raise "
            "held_out or alpha, lower the confidence, or take the marginal guarantee"
        )

    def guarantee(self, alpha: float) -> Guarantee:
        """At most alpha for this set with the confidence, and where its rate lies."""
        k = self.flagged_ranks(alpha)
        low, high = realised_range(k, len(self), 0.9)
        return Guarantee(
            rate=alpha,
            confidence=self.confidence,
            realised=(low, high),
            smallest=float(self.levels[0]),
            sentence=f"at most {alpha:.1%} of all future known images, with {100 * self.confidence:g} % confidence "
            f"over calibration sets ({WORDS[self.bound]}); {low:.1%} to {high:.1%} with this one (90 % confidence)",
        )

    def allowed(self, alpha: float, n_test: int, confidence: float = 0.99) -> tuple[float, float]:
        """Where the share of flagged images among unseen ID images lies, over calibration sets and images."""
        return observed_range(self.flagged_ranks(alpha), len(self), n_test, confidence)
