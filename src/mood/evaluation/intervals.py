"""Metrics with bootstrap intervals, from one sort.

Efron: Bootstrap Methods, Annals of Statistics 7, 1979: percentile intervals over images drawn with replacement, ID
and OOD each from their own set and in their own number. A metric needs only how often each distinct score occurs, so
a replicate is a new set of counts over the order that was sorted once, and no replicate is ever sorted.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import NormalDist
from typing import Any

import numpy as np

from mood.core.errors import InputError
from mood.core.score_vector import score_vector
from mood.evaluation.metrics import (
    auroc_of,
    average_precision_of,
    detection_error_of,
    fpr_of,
    positives_first,
    tally,
)

CHUNK = 2**17
"""Counts that are held at once on each side: about what a processor keeps near itself, 1 MiB."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """A number and the interval around it.

    Attributes:
        value: the metric on the images as they are, a share in [0, 1].
        low: lower end of the interval.
        high: upper end.
    """

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Metrics:
    """How well the scores tell one OOD set from ID; scores are higher = more OOD, metrics are shares in [0, 1].

    Attributes:
        auroc: higher is better, 0.5 is guessing.
        fpr95_id_positive: share of OOD accepted while 95 % of ID is; lower is better; the headline.
        fpr95_ood_positive: share of ID flagged while 95 % of OOD is; lower is better.
        aupr_id_positive: average precision of finding ID from the lowest score up; higher is better.
        aupr_ood_positive: average precision of finding OOD from the highest score down; higher is better.
        detection_error: smallest mean of ID flagged and OOD accepted over all thresholds; lower is better.
        n_id: number of ID images.
        n_ood: number of OOD images.
        replicates: how often the images were drawn again.
        confidence: of the intervals.
        seed: of the draws.
    """

    auroc: Estimate
    fpr95_id_positive: Estimate
    fpr95_ood_positive: Estimate
    aupr_id_positive: Estimate
    aupr_ood_positive: Estimate
    detection_error: Estimate
    n_id: int
    n_ood: int
    replicates: int
    confidence: float
    seed: int

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers as JSON has them; an estimate is {"value", "low", "high"}."""
        return asdict(self)


def evaluate(
    id_scores: Any,
    ood_scores: Any,
    *,
    versions: Sequence[Any] = (),
    replicates: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
) -> Metrics:
    """Every metric with its bootstrap interval.

    The intervals speak of the draw of the test images only, not of training; the metrics of one replicate belong to
    the same draw. Where a set is told apart without error, no draw of it can err either and the interval is a point.
    The result does not depend on the order of the images, and the same seed gives the same draws.

    Args:
        id_scores: (n_id,) list, array or tensor, higher = more OOD.
        ood_scores: (n_ood,), likewise.
        versions: (n_id,) scores of the same ID images in the same order, each time as they look under a shift. They
            count as ID; an image is drawn with all its versions, since they are no more images than there were.
        replicates: how often to draw, ≥ 1.
        confidence: of the central percentile interval, inside (0, 1).
        seed: of the draws, ≥ 0.

    Raises:
        InputError: a set is empty, a score is NaN, versions of other numbers of images, or an argument is out of its
            range.
    """
    known = _versions(id_scores, versions)
    return _evaluated(known, score_vector(ood_scores, "ood_scores"), "", replicates, confidence, seed)[0]


@dataclass(frozen=True, slots=True)
class MetricsOfSets:
    """What `evaluate_sets` found.

    Attributes:
        sets: metrics of each OOD set.
        means: mean → metric, by the names of `Metrics` → its estimate.
    """

    sets: Mapping[str, Metrics]
    means: Mapping[str, Mapping[str, Estimate]]


def evaluate_sets(
    id_scores: Any,
    ood_scores: Mapping[str, Any],
    means: Mapping[str, Sequence[str]],
    *,
    versions: Sequence[Any] = (),
    replicates: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
) -> MetricsOfSets:
    """`evaluate` of several OOD sets against one ID set, and unweighted means over them with intervals.

    A replicate draws the ID images once for all sets, and every set for itself, so that a mean over them has the
    spread of all. What a set's interval is depends on its name and the seed, and not on the sets beside it.

    Args:
        id_scores: (n_id,) higher = more OOD.
        ood_scores: (n_ood,) of each set by its name.
        means: what each mean is called → the sets that it is over, as `mood.evaluation.protocols.members` gives them.
        versions: as `evaluate` has them.
        replicates: how often to draw, ≥ 1.
        confidence: of the central percentile interval, inside (0, 1).
        seed: of the draws, ≥ 0.

    Raises:
        InputError: what `evaluate` refuses, or a mean over nothing or over a set that is not there.
    """
    for mean, names in means.items():
        if not names or not {*names} <= ood_scores.keys() or len({*names}) < len(names):
            raise InputError(f"the mean {mean!r} is over {[*names]}; some of {[*ood_scores]} were expected, each once")
    known = _versions(id_scores, versions)
    found = {
        name: _evaluated(known, score_vector(scores, f"ood_scores of {name!r}"), name, replicates, confidence, seed)
        for name, scores in ood_scores.items()
    }
    of_means = {
        mean: {
            metric: _estimate(
                np.mean([getattr(found[name][0], metric).value for name in names]),
                np.mean([found[name][1][metric] for name in names], axis=0),
                confidence,
            )
            for metric in found[names[0]][1]
        }
        for mean, names in means.items()
    }
    return MetricsOfSets({name: metrics for name, (metrics, _) in found.items()}, of_means)


def _evaluated(
    known: np.ndarray, unknown: np.ndarray, name: str, replicates: int, confidence: float, seed: int
) -> tuple[Metrics, dict[str, np.ndarray]]:
    """The metrics of one OOD set, and the (replicates,) values of each that are behind its interval."""
    if replicates < 1:
        raise InputError(f"replicates is {replicates}; at least 1 is needed for an interval")
    if seed < 0:
        raise InputError(f"seed is {seed}; it must not be negative")
    _inside(confidence)
    id_counts, ood_counts = tally(known.ravel(), unknown)
    distinct = np.unique(np.concatenate((known.ravel(), unknown)))
    id_places, ood_places = (_sorted(np.searchsorted(distinct, side)) for side in (known, unknown[:, None]))
    values = _metrics(id_counts, ood_counts)
    drawn: dict[str, list[np.ndarray]] = {metric: [] for metric in values}
    # Two streams of draws, so that neither depends on the size of the other set or on how many are drawn at once. That
    # of the ID images is the same whatever they stand against; sets of one size would be drawn alike without a name.
    id_draws, ood_draws = (
        np.random.default_rng(np.random.SeedSequence(seed, spawn_key=key)) for key in ((0,), (1, *name.encode()))
    )
    chunk = max(1, CHUNK // max(len(id_counts), int(id_counts.sum()), int(ood_counts.sum())))
    for start in range(0, replicates, chunk):
        size = min(chunk, replicates - start)
        resampled = _metrics(
            redraw(id_places, len(distinct), size, id_draws), redraw(ood_places, len(distinct), size, ood_draws)
        )
        for metric, found in resampled.items():
            drawn[metric].append(found)
    replicated = {metric: np.concatenate(parts) for metric, parts in drawn.items()}
    metrics = Metrics(
        **{metric: _estimate(value, replicated[metric], confidence) for metric, value in values.items()},
        n_id=int(id_counts.sum()),
        n_ood=int(ood_counts.sum()),
        replicates=replicates,
        confidence=confidence,
        seed=seed,
    )
    return metrics, replicated


def _estimate(value: Any, replicated: np.ndarray, confidence: float) -> Estimate:
    tail = (1 - confidence) / 2
    low, high = np.quantile(replicated, (tail, 1 - tail))
    return Estimate(float(value), float(low), float(high))


def redraw(places: np.ndarray, groups: int, size: int, draws: np.random.Generator) -> np.ndarray:
    """Draw as many images as there are, with replacement, `size` times over.

    Args:
        places: (n, V) which distinct score each version of each image has.
        groups: number of distinct scores G.
        size: number of replicates R.
        draws: where the draws come from.

    Returns:
        (R, G) float64, how often each distinct score occurs: n · V in each row.
    """
    n = len(places)
    drawn = places[draws.integers(0, n, size=(size, n), dtype=np.int64)]
    drawn += groups * np.arange(size)[:, None, None]
    return np.bincount(drawn.ravel(), minlength=size * groups).reshape(size, groups).astype(np.float64)


def flagged_share(scores: Any, threshold: float, *, confidence: float = 0.95) -> Estimate:
    """The share of images with score > threshold, with Wilson's interval (JASA 22, 1927).

    On OOD images it is what a detector catches; on unseen ID images it is its rate of false alarms. The interval
    speaks of the draw of these images and takes the threshold as given.

    Args:
        scores: (N,) list, array or tensor, higher = more OOD.
        threshold: an image is flagged above it.
        confidence: of the interval, inside (0, 1).

    Raises:
        InputError: no scores, a score or the threshold is NaN, or `confidence` is out of range.
    """
    vector = score_vector(scores, "scores")
    n = len(vector)
    if not n:
        raise InputError("scores is empty; a share needs at least one image")
    if math.isnan(threshold):
        raise InputError("threshold is nan; nothing can be compared with it")
    share = float((vector > threshold).mean())
    z = NormalDist().inv_cdf((1 + _inside(confidence)) / 2)
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return Estimate(share, min(share, max(0.0, centre - half)), max(share, min(1.0, centre + half)))


def _metrics(id_counts: np.ndarray, ood_counts: np.ndarray) -> Mapping[str, np.ndarray]:
    """Every metric (...) of ascending counts (..., G)."""
    found = {"auroc": auroc_of(id_counts, ood_counts)}
    for positive in ("id", "ood"):
        sides = positives_first(positive, id_counts, ood_counts)
        found[f"fpr95_{positive}_positive"] = fpr_of(*sides, 0.95)
        found[f"aupr_{positive}_positive"] = average_precision_of(*sides)
    found["detection_error"] = detection_error_of(id_counts, ood_counts)
    return found


def _versions(id_scores: Any, versions: Sequence[Any]) -> np.ndarray:
    """(n_id, 1 + versions) scores of the ID images."""
    columns = [score_vector(id_scores, "id_scores")]
    columns += [score_vector(version, f"versions[{index}]") for index, version in enumerate(versions)]
    for index, column in enumerate(columns[1:]):
        if len(column) != len(columns[0]):
            raise InputError(
                f"versions[{index}] has {len(column)} scores and there are {len(columns[0])} ID images; a version is "
                "of the same images"
            )
    return np.stack(columns, axis=1)


def _sorted(places: np.ndarray) -> np.ndarray:
    """The rows in an order of their own, whatever order the images came in."""
    return places[np.lexsort(places.T[::-1])]


def _inside(confidence: float) -> float:
    if not 0 < confidence < 1:
        raise InputError(f"confidence is {confidence}; it must lie between 0 and 1")
    return confidence
