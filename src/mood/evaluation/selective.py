"""Metrics of a classifier that may abstain: accuracy, risk over coverage, right known images against unknown ones.

A score sorts the images from the most usual one up; the classifier answers on the first ones and abstains on the rest.
"""

from collections.abc import Iterable
from math import sqrt
from statistics import NormalDist, fmean
from typing import Any

import numpy as np

from mood.core.errors import InputError
from mood.core.score_vector import score_vector
from mood.evaluation.comparing import placements
from mood.evaluation.intervals import CHUNK, Estimate, redraw
from mood.evaluation.metrics import auroc


def accuracy(predicted: Any, labels: Any) -> float:
    """The share of images whose predicted class is their label.

    Args:
        predicted: (N,) class indices.
        labels: (N,) class indices.

    Raises:
        InputError: no images, or lengths that differ.
    """
    return float(_right(predicted, labels).mean())


def aurc(scores: Any, wrong: Any) -> float:
    """Area under the risk-coverage curve: (1/N) Σ_k (share of errors among the k images of the lowest scores).

    Geifman, Uziel, El-Yaniv: Bias-Reduced Uncertainty Estimation for Deep Neural Classifiers, ICLR 2019. Tied images
    count as if in random order: each carries the mean number of errors of its group.

    Args:
        scores: (N,) higher = less sure; a score of OOD detection is one.
        wrong: (N,) booleans, whether the classifier errs. To count unknown images as errors, put them in as wrong.

    Returns:
        A share in [0, 1]; lower is better.

    Raises:
        InputError: no images, lengths that differ, NaN, or another kind than booleans.
    """
    place, errors = _placed(scores, wrong)
    return float(_aurc_of(*_counts(place, errors))[0])


def excess_aurc(scores: Any, wrong: Any) -> float:
    """`aurc` less that of the best order, which puts every error last; 0 where none is ahead of a right answer.

    Args and errors are those of `aurc`.
    """
    counts = _counts(*_placed(scores, wrong))
    return float((_aurc_of(*counts) - _best_aurc(*counts))[0])


def aurc_interval(
    scores: Any,
    wrong: Any,
    *,
    excess: bool = False,
    replicates: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
) -> Estimate:
    """`aurc`, or `excess_aurc`, with a bootstrap interval over the draw of the images (Efron, 1979).

    Errors of a good classifier are few, and with some hundred images the interval is too narrow: of 150 images with
    16 % of errors, nine in ten intervals of 95 % hold the truth.

    Args:
        scores: (N,) higher = less sure.
        wrong: (N,) booleans.
        excess: over the best order of the same draw.
        replicates: how often to draw, ≥ 1.
        confidence: of the central percentile interval, inside (0, 1).
        seed: of the draws, ≥ 0.

    Raises:
        InputError: what `aurc` refuses, or an argument out of its range.
    """
    if replicates < 1 or seed < 0 or not 0 < confidence < 1:
        raise InputError(
            f"replicates is {replicates}, seed {seed} and confidence {confidence}; at least 1 and 0, and a number "
            "between 0 and 1 were expected"
        )
    place, errors = _placed(scores, wrong)
    groups = int(place.max()) + 1

    def value(sizes: np.ndarray, of_errors: np.ndarray) -> np.ndarray:
        return _aurc_of(sizes, of_errors) - (_best_aurc(sizes, of_errors) if excess else 0.0)

    # Right and wrong images of one score are two kinds, in an order of their own whatever order they came in.
    kinds = np.sort(2 * place + errors)[:, None]
    draws, drawn = np.random.default_rng(seed), []
    chunk = max(1, CHUNK // max(len(kinds), 2 * groups))
    for start in range(0, replicates, chunk):
        counts = redraw(kinds, 2 * groups, min(chunk, replicates - start), draws).reshape(-1, groups, 2)
        drawn.append(value(counts.sum(2), counts[:, :, 1]))
    low, high = np.quantile(np.concatenate(drawn), ((1 - confidence) / 2, (1 + confidence) / 2))
    return Estimate(float(value(*_counts(place, errors))[0]), float(low), float(high))


def oscr(id_scores: Any, id_right: Any, ood_scores: Any) -> float:
    """Open-set classification rate: area under (ID both right and accepted) over (OOD accepted).

    Dhamija, Günther, Boult: Reducing Network Agnostophobia, NeurIPS 2018. The area is P(an ID image is right and its
    score is below that of an OOD image), ties counted half: accuracy times the AUROC of the right ones.

    Args:
        id_scores: (n_id,) higher = more OOD.
        id_right: (n_id,) booleans, whether the predicted class is the label.
        ood_scores: (n_ood,).

    Returns:
        A share in [0, accuracy]; higher is better.

    Raises:
        InputError: a set is empty, a score is NaN, or lengths that differ.
    """
    known, right = score_vector(id_scores, "id_scores"), np.asarray(id_right)
    if right.dtype != bool or right.shape != known.shape:
        raise InputError(f"id_right is {right.dtype} {right.shape}; bool {known.shape} was expected")
    # With no right answer at all the area is 0, whatever the scores are; empty sets are told by auroc.
    return float(right.mean()) * auroc(known[right], ood_scores) if right.any() else 0.0 * auroc(known, ood_scores)


def oscr_interval(id_scores: Any, id_right: Any, ood_scores: Any, *, confidence: float = 0.95) -> Estimate:
    """`oscr` with a normal interval in closed form, cut at 0 and 1.

    It is a mean over pairs as AUROC is, in which wrong images count nothing; so the variance is DeLong's.

    Args:
        id_scores: (n_id,) higher = more OOD, n_id ≥ 2.
        id_right: (n_id,) booleans.
        ood_scores: (n_ood,), n_ood ≥ 2.
        confidence: of the interval, inside (0, 1).

    Raises:
        InputError: what `oscr` refuses, fewer than two images in a set, or `confidence` out of range.
    """
    return mean_oscr_interval(id_scores, id_right, [ood_scores], confidence=confidence)


def mean_oscr_interval(
    id_scores: Any, id_right: Any, ood_scores: Iterable[Any], *, confidence: float = 0.95
) -> Estimate:
    """Mean `oscr` of several OOD sets against the same ID images, each of which counts once, as `oscr_interval`.

    Args:
        id_scores: (n_id,) higher = more OOD, n_id ≥ 2.
        id_right: (n_id,) booleans.
        ood_scores: (n_ood,) of each set, n_ood ≥ 2; no image is in two of them.
        confidence: of the interval, inside (0, 1).

    Raises:
        InputError: no set, what `oscr` refuses, fewer than two images in a set, or `confidence` out of range.
    """
    known, right = score_vector(id_scores, "id_scores"), np.asarray(id_right)
    sets = [score_vector(scores, "ood_scores") for scores in ood_scores]
    if not sets:
        raise InputError("ood_scores has no set; a mean needs at least one")
    values = [oscr(known, right, unknown) for unknown in sets]
    fewest = min(map(len, sets))
    if min(len(known), fewest) < 2 or not 0 < confidence < 1:
        raise InputError(
            f"there are {len(known)} ID and {fewest} OOD images and confidence is {confidence}; two of each, and a "
            "number between 0 and 1 were expected"
        )
    of_id, variance = np.zeros(len(known)), 0.0
    for unknown in sets:
        of_id += placements(known, unknown)[0] * right / len(sets)
        if right.any():
            of_ood = placements(known[right], unknown)[1] * right.mean() / len(sets)
            variance += of_ood.var(ddof=1) / len(unknown)
    variance += of_id.var(ddof=1) / len(known)
    half, value = NormalDist().inv_cdf((1 + confidence) / 2) * sqrt(variance), fmean(values)
    return Estimate(value, max(0.0, value - half), min(1.0, value + half))


def _placed(scores: Any, wrong: Any) -> tuple[np.ndarray, np.ndarray]:
    """(N,) which distinct score each image has, ascending, and (N,) whether the classifier errs there."""
    vector, errors = score_vector(scores, "scores"), np.asarray(wrong)
    if errors.dtype != bool or errors.shape != vector.shape or not len(vector):
        raise InputError(f"wrong is {errors.dtype} {errors.shape}; bool {vector.shape} with at least one was expected")
    return np.unique(vector, return_inverse=True)[1], errors


def _counts(place: np.ndarray, errors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(1, G) images, and errors among them, of each distinct score."""
    return np.bincount(place)[None].astype(np.float64), np.bincount(place, errors)[None]


def _aurc_of(sizes: np.ndarray, errors: np.ndarray) -> np.ndarray:
    """AURC (R,) of ascending counts (R, G).

    Of a group of s tied images with e errors behind n images with E errors, the k-th share is (E + k e/s) / (n + k);
    the sum over k is e + (E − n e/s) (H(n + s) − H(n)) with the harmonic numbers H.
    """
    harmonic = _harmonic(int(sizes[0].sum()))
    up_to = np.cumsum(sizes, 1)
    before = up_to - sizes
    rate = errors / np.maximum(sizes, 1)
    wrong_before = np.cumsum(errors, 1) - errors
    steps = harmonic[up_to.astype(np.int64)] - harmonic[before.astype(np.int64)]
    return np.asarray((errors + (wrong_before - before * rate) * steps).sum(1) / up_to[:, -1])


def _best_aurc(sizes: np.ndarray, errors: np.ndarray) -> np.ndarray:
    """AURC (R,) where every error comes last."""
    n, wrong = sizes.sum(1), errors.sum(1)
    return _aurc_of(np.stack([n - wrong, wrong], 1), np.stack([np.zeros_like(wrong), wrong], 1))


def _harmonic(n: int) -> np.ndarray:
    """(n + 1,) H(0) = 0, H(1), …, H(n)."""
    return np.concatenate(([0.0], np.cumsum(1 / np.arange(1, n + 1))))


def _right(predicted: Any, labels: Any) -> np.ndarray:
    said, true = np.asarray(predicted), np.asarray(labels)
    if said.ndim != 1 or said.shape != true.shape or not len(said):
        raise InputError(f"predicted is {said.shape} and labels {true.shape}; the same (N,), N ≥ 1, was expected")
    return np.asarray(said == true)
