"""Many images at once: how many of those that are flagged are false alarms?

Alpha is a rate per image: of a thousand ID images, an alpha of 5 % flags fifty. A false-discovery rate is a share of
what is flagged: at 5 %, of a hundred flagged images five are ID, on average over batches.

Benjamini, Hochberg: Controlling the False Discovery Rate, JRSS B 57, 1995. Storey, Taylor, Siegmund: Strong Control,
Conservative Point Estimation and Simultaneous Conservative Consistency of False Discovery Rates, JRSS B 66, 2004.
p-values of one calibration set depend on each other. Benjamini and Hochberg's procedure bears it, as they are PRDS:
Bates et al., Annals of Statistics 51(1), 2023, section 2. That alone says nothing of Storey's estimate. With it the
rate is at most level · (1 − λ) / (1 − K/(n+1)), K = ⌈λ (n+1)⌉, for scores without ties: the level itself where
λ (n+1) is whole, level · (n+1)/n for λ = 1/2 and an even n. The argument, which was not taken from a paper: given the
calibration scores and that of an ID image j as one bag, and all other scores, the rank of j is even on 1 … n+1; were j
the most unusual of the bag, neither the number flagged nor the estimate would be another wherever j is flagged; so the
rate is at most level/N · Σ_j E[1/π₀], and the mean of 1/q for q = 1 − U_(K) ~ Beta(n+2−K, K) is 1/(1 − K/(n+1)). This
needs p ≥ λ to count: with p > λ alone, as for independent p-values, the rate was 1.02 levels in a simulation with
n = 19. The code of Marandon, Lei, Mary, Roquain (Annals of Statistics 52, 2024; AdaDetect) counts p ≥ λ as well, that
of Bates et al. p > λ; neither leaves what is above λ unflagged. Their theorems were not compared with this argument.
"""

import math
from typing import Any

import numpy as np

from mood.core.errors import InputError
from mood.core.score_vector import score_vector
from mood.decisions.conformal import inside

METHODS = ("bh", "storey")

LAMBDA = 0.5
"""Storey's λ: p-values from it on are taken for those of ID images."""


def discoveries(p_values: Any, level: float, *, method: str = "bh") -> np.ndarray:
    """Which images of a batch are flagged so that the false-discovery rate is at most the level.

    Args:
        p_values: (N,) in [0, 1], small = OOD, of the whole batch.
        level: of the false-discovery rate, inside (0, 1).
        method: "bh", Benjamini and Hochberg; "storey", the same at level / π₀, where π₀ = (1 + #{p ≥ λ}) / (N (1 − λ))
            estimates the share of ID images, and nothing with p > λ is flagged: more power where much of a batch is
            OOD, a little less where nothing is.

    Returns:
        (N,) bool.

    Raises:
        InputError: a p-value outside [0, 1], a level outside (0, 1), or another method.
    """
    values = score_vector(p_values, "p_values", infinite=False)
    if len(values) and not (values.min() >= 0 and values.max() <= 1):
        raise InputError(f"p_values lie between {values.min():g} and {values.max():g}; shares in [0, 1] were expected")
    if method not in METHODS:
        raise InputError(f"method is {method!r}; {' or '.join(METHODS)} was expected")
    level, cap = inside("level", level), 1.0
    if method == "storey" and len(values):
        level, cap = level / id_share(int((values >= LAMBDA).sum()), len(values)), LAMBDA
    ordered = np.sort(values)
    ranks = np.arange(1, len(values) + 1)
    # Compared as products: a p-value k/(n+1) that meets its line exactly is below it, whatever the rounding.
    below = np.flatnonzero((ordered <= level * ranks / max(len(values), 1) * (1 + 1e-12)) & (ordered <= cap))
    if not len(below):
        return np.zeros(len(values), bool)
    flagged: np.ndarray = values <= ordered[below[-1]]
    return flagged


def id_share(large: int, images: int) -> float:
    """Storey's estimate π₀ of the share of ID images, of which it may find more than there are images.

    Args:
        large: how many p-values are at least λ.
        images: of the batch, ≥ 1.
    """
    return (1 + large) / (images * (1 - LAMBDA))


def fewest_discoveries(level: float, smallest: float, images: int, *, known: float = 1.0) -> int:
    """How many images must be flagged together before any is.

    Args:
        level: of the false-discovery rate, inside (0, 1).
        smallest: the smallest p-value that the calibration can give, such as 1/(n+1).
        images: of the batch.
        known: the share of ID images that Storey's method reckons with (`id_share`); 1 with Benjamini and Hochberg's.
    """
    return max(1, math.ceil(smallest * images * known / inside("level", level) * (1 - 1e-12)))
