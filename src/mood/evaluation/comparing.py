"""Whether one method is better than another on the same images, and not by chance."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import repeat
from math import erfc, inf, sqrt
from statistics import NormalDist
from typing import Any

import numpy as np

from mood.core.errors import InputError
from mood.core.score_vector import score_vector
from mood.evaluation.intervals import CHUNK, Estimate
from mood.evaluation.metrics import auroc_of


@dataclass(frozen=True, slots=True)
class Comparison:
    """The difference of two methods on the same images, first less second.

    Attributes:
        difference: of the metric, in [-1, 1].
        low: lower end of its interval.
        high: upper end.
        p_value: of both being equal, two-sided.
    """

    difference: float
    low: float
    high: float
    p_value: float


def auroc_interval(id_scores: Any, ood_scores: Any, *, confidence: float = 0.95) -> Estimate:
    """AUROC with DeLong's interval: closed form, one sort, cut at 0 and 1.

    DeLong, DeLong, Clarke-Pearson: Biometrics 44, 1988, by midranks as in Sun, Xu: IEEE SPL 21, 2014.

    Args:
        id_scores: (n_id,) higher = more OOD, n_id ≥ 2.
        ood_scores: (n_ood,), n_ood ≥ 2.
        confidence: of the normal interval, inside (0, 1).

    Raises:
        InputError: fewer than two images in a set, NaN, or `confidence` out of range.
    """
    known, unknown = _side([id_scores], "id_scores"), _side([ood_scores], "ood_scores")
    (value,), covariance = _delong(known, unknown)
    half = _quantile(confidence) * sqrt(covariance[0, 0])
    return Estimate(float(value), max(0.0, float(value - half)), min(1.0, float(value + half)))


Side = tuple[str, Any]
"""Whose images these are, and their (n,) scores."""


def mean_auroc_interval(
    comparisons: Iterable[tuple[Side, Side]], *, weights: Iterable[float] | None = None, confidence: float = 0.95
) -> Estimate:
    """Mean AUROC of several comparisons, with DeLong's interval cut at 0 and 1.

    The comparisons may share images: several OOD sets stand against one ID set, and in one-class detection each image
    is known once and unknown elsewhere. An image counts with the mean of all that it adds, as one of a cluster does in
    Obuchowski: Biometrics 53, 1997; images of other names are drawn by themselves.

    Args:
        comparisons: (name, (n_id,) scores) and (name, (n_ood,) scores), higher = more OOD, of each. Sides of one name
            are the same images in the same order, by whatever score; both sides of a comparison may be.
        weights: of each comparison, ≥ 0 and not all 0; all weigh the same unless said. An OOD side that is several
            names together is as many comparisons, weighing what they have of its images.
        confidence: of the normal interval, inside (0, 1).

    Raises:
        InputError: no comparison, fewer than two images on a side, two numbers of images under one name, NaN, another
            number of weights, or an argument out of range.
    """
    value, added = _mean(comparisons, weights)
    variance = sum(float(part.var(ddof=1)) / len(part) for part in added.values())
    half = _quantile(confidence) * sqrt(variance)
    return Estimate(value, max(0.0, value - half), min(1.0, value + half))


def compare_mean_auroc(
    first: Iterable[tuple[Side, Side]], second: Iterable[tuple[Side, Side]], *, confidence: float = 0.95
) -> Comparison:
    """Two methods by their mean AUROC over the same comparisons of the same images, as `mean_auroc_interval` has them.

    Args:
        first: the comparisons of one method.
        second: those of the other, with the same names.
        confidence: of the normal interval, inside (0, 1).

    Returns:
        The comparison; p is 1 where the difference is 0, and 0 where it is not and has no variance.

    Raises:
        InputError: what `mean_auroc_interval` refuses, or images under other names, or in other numbers.
    """
    (one, of_one), (other, of_other) = _mean(first), _mean(second)
    if {name: len(part) for name, part in of_one.items()} != {name: len(part) for name, part in of_other.items()}:
        raise InputError(f"the first method has images of {[*of_one]} and the second of {[*of_other]}, not the same")
    parts = [part - of_other[name] for name, part in of_one.items()]
    return _compared(one - other, sqrt(sum(float(part.var(ddof=1)) / len(part) for part in parts)), confidence)


def _mean(
    comparisons: Iterable[tuple[Side, Side]], weights: Iterable[float] | None = None
) -> tuple[float, dict[str, np.ndarray]]:
    """The mean AUROC, and what each image of each name adds to it."""
    values: list[float] = []
    heavy: list[float] = []
    added: dict[str, np.ndarray] = {}
    given = repeat(1.0) if weights is None else iter(weights)
    for (known_name, known_scores), (unknown_name, unknown_scores) in comparisons:
        known, unknown = _side([known_scores], "id_scores")[0], _side([unknown_scores], "ood_scores")[0]
        of_id, of_ood = placements(known, unknown)
        weight = next(given, -1.0)
        values.append(weight * float(of_ood.mean()))
        heavy.append(weight)
        for name, part in ((known_name, of_id), (unknown_name, of_ood)):
            before = added.setdefault(name, np.zeros(len(part)))
            if len(before) != len(part):
                raise InputError(f"{name!r} has {len(part)} images in one comparison and {len(before)} in another")
            added[name] = before + weight * part
    if not values:
        raise InputError("there are no comparisons to take the mean of")
    if min(heavy) < 0 or not 0 < sum(heavy) < inf or (weights is not None and next(given, None) is not None):
        raise InputError(f"weights must be {len(values)} numbers from 0 up, one a comparison, that are not all 0")
    return sum(values) / sum(heavy), {name: part / sum(heavy) for name, part in added.items()}


def compare_auroc(first: tuple[Any, Any], second: tuple[Any, Any], *, confidence: float = 0.95) -> Comparison:
    """DeLong's test of two AUROCs of the same images.

    Args:
        first: (n_id,) and (n_ood,) scores of one method.
        second: scores of the other, of the same images in the same order.
        confidence: of the normal interval.

    Returns:
        The comparison; p is 1 where the difference is 0, and 0 where it is not and has no variance.

    Raises:
        InputError: other numbers of images on both sides, fewer than two of them, NaN, or `confidence` out of range.
    """
    known, unknown = _side([first[0], second[0]], "id_scores"), _side([first[1], second[1]], "ood_scores")
    values, covariance = _delong(known, unknown)
    difference = float(values[0] - values[1])
    deviation = sqrt(max(0.0, float(covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1])))
    return _compared(difference, deviation, confidence)


def _compared(difference: float, deviation: float, confidence: float) -> Comparison:
    half = _quantile(confidence) * deviation
    p_value = 1.0 if difference == 0 else erfc(abs(difference) / deviation / sqrt(2)) if deviation else 0.0
    return Comparison(difference, max(-1.0, difference - half), min(1.0, difference + half), p_value)


Metric = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""Ascending counts (R, G) of ID and of OOD → (R,), as `mood.evaluation.metrics.auroc_of`."""


def paired_bootstrap(
    first: tuple[Any, Any],
    second: tuple[Any, Any],
    metric: Metric = auroc_of,
    *,
    replicates: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
) -> Comparison:
    """Two methods on the same draws of the same images, for any metric of counts.

    Args:
        first: (n_id,) and (n_ood,) scores of one method.
        second: scores of the other, of the same images in the same order.
        metric: of `mood.evaluation.metrics`: `auroc_of`, `detection_error_of`, …
        replicates: how often to draw, ≥ 1.
        confidence: of the percentile interval.
        seed: of the draws, ≥ 0.

    Returns:
        The comparison. p is twice the share of draws on the other side of 0, draws at 0 counted on both, with one more
        draw added to each, so that it is never 0 (Davison, Hinkley: Bootstrap Methods, 1997, section 4.2).

    Raises:
        InputError: other numbers of images on both sides, NaN, or an argument out of range.
    """
    if replicates < 1 or seed < 0:
        raise InputError(f"replicates is {replicates} and seed {seed}; at least 1 and 0 were expected")
    tail = 1 - NormalDist().cdf(_quantile(confidence))
    known = _side([first[0], second[0]], "id_scores", fewest=1)
    unknown = _side([first[1], second[1]], "ood_scores", fewest=1)
    n_id, n_ood = known.shape[1], unknown.shape[1]
    orders = []
    for scores in np.concatenate((known, unknown), axis=1):
        order = np.argsort(scores, kind="stable")
        starts = np.flatnonzero(np.concatenate(([True], np.diff(scores[order]) != 0)))
        orders.append((order, starts))

    def difference(of_known: np.ndarray, of_unknown: np.ndarray) -> np.ndarray:
        """(R,) from how often each image was drawn, (R, n_id) and (R, n_ood)."""
        blank_id, blank_ood = np.zeros_like(of_known), np.zeros_like(of_unknown)
        sides = np.hstack((of_known, blank_ood)), np.hstack((blank_id, of_unknown))
        values = [
            metric(*(np.add.reduceat(side[:, order], starts, axis=1) for side in sides)) for order, starts in orders
        ]
        return np.asarray(values[0] - values[1])

    found = float(difference(np.ones((1, n_id)), np.ones((1, n_ood)))[0])
    id_draws, ood_draws = (np.random.default_rng(child) for child in np.random.SeedSequence(seed).spawn(2))
    drawn = []
    chunk = max(1, CHUNK // (n_id + n_ood))
    for start in range(0, replicates, chunk):
        size = min(chunk, replicates - start)
        counts = [_drawn(size, n, draws) for n, draws in ((n_id, id_draws), (n_ood, ood_draws))]
        drawn.append(difference(*counts))
    values = np.concatenate(drawn)
    low, high = np.quantile(values, (tail, 1 - tail))
    other_side = min(int((values <= 0).sum()), int((values >= 0).sum()))
    return Comparison(found, float(low), float(high), min(1.0, 2 * (other_side + 1) / (replicates + 1)))


def _drawn(size: int, n: int, draws: np.random.Generator) -> np.ndarray:
    """(size, n) float64: how often each of n images is drawn when n are, with replacement."""
    picks = draws.integers(0, n, size=(size, n), dtype=np.int64) + n * np.arange(size)[:, None]
    return np.bincount(picks.ravel(), minlength=size * n).reshape(size, n).astype(np.float64)


def _side(scores: list[Any], name: str, fewest: int = 2) -> np.ndarray:
    """(methods, n) scores of one side."""
    vectors = [score_vector(part, name) for part in scores]
    if len({len(vector) for vector in vectors}) > 1:
        raise InputError(f"{name} has {len(vectors[0])} images in one method and {len(vectors[1])} in the other")
    if len(vectors[0]) < fewest:
        raise InputError(f"{name} has {len(vectors[0])} images; at least {fewest} are needed")
    return np.stack(vectors)


def _delong(known: np.ndarray, unknown: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """AUROC (methods,) and its covariance (methods, methods) of (methods, n) scores of both sides."""
    n_id, n_ood = known.shape[1], unknown.shape[1]
    shares = [placements(low, high) for low, high in zip(known, unknown, strict=True)]
    of_id, of_ood = (np.stack(side) for side in zip(*shares, strict=True))
    covariance = np.atleast_2d(np.cov(of_ood)) / n_ood + np.atleast_2d(np.cov(of_id)) / n_id
    return of_ood.mean(1), covariance


def placements(known: np.ndarray, unknown: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(n_id,) and (n_ood,): of each image, the share of the other side that it is on the right side of.

    Ties count half. The means of both are the AUROC, and their variances that of it (DeLong).

    Args:
        known: (n_id,) higher = more OOD.
        unknown: (n_ood,).
    """
    return 1 - _below(unknown, known) / len(unknown), _below(known, unknown) / len(known)


def _below(others: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """How many of the others lie below each score, ties counted half."""
    ordered = np.sort(others)
    return (np.searchsorted(ordered, scores, "left") + np.searchsorted(ordered, scores, "right")) / 2


def _quantile(confidence: float) -> float:
    if not 0 < confidence < 1:
        raise InputError(f"confidence is {confidence}; it must lie between 0 and 1")
    return NormalDist().inv_cdf((1 + confidence) / 2)
