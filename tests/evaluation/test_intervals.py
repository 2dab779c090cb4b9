"""Intervals: every replicate is the metric of images that were drawn, and the ends cover as often as they say."""

import json
import math
import time
import tracemalloc
from typing import Any

import numpy as np
import pytest
import scipy.stats

from mood.core.errors import InputError
from mood.evaluation import (
    Estimate,
    Metrics,
    aupr,
    auroc,
    detection_error,
    evaluate,
    evaluate_sets,
    flagged_share,
    fpr_at_tpr,
    intervals,
)

NAMES = ("auroc", "fpr95_id_positive", "fpr95_ood_positive", "aupr_id_positive", "aupr_ood_positive", "detection_error")


def one_by_one(known: np.ndarray, unknown: np.ndarray) -> dict[str, float]:
    return {
        "auroc": auroc(known, unknown),
        "fpr95_id_positive": fpr_at_tpr(known, unknown, positive="id"),
        "fpr95_ood_positive": fpr_at_tpr(known, unknown, positive="ood"),
        "aupr_id_positive": aupr(known, unknown, positive="id"),
        "aupr_ood_positive": aupr(known, unknown, positive="ood"),
        "detection_error": detection_error(known, unknown),
    }


def sample(seed: int, n_id: int, n_ood: int, digits: int = 12) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.normal(size=n_id).round(digits), rng.normal(1, 1.3, size=n_ood).round(digits)


def ends(metrics: Metrics) -> list[tuple[float, float]]:
    return [(getattr(metrics, name).low, getattr(metrics, name).high) for name in NAMES]


@pytest.mark.parametrize("digits", [0, 1, 12])
@pytest.mark.parametrize(("n_id", "n_ood"), [(1, 1), (2, 3), (60, 25), (150, 400)])
def test_a_replicate_is_the_metric_of_the_images_that_were_drawn(
    monkeypatch: pytest.MonkeyPatch, n_id: int, n_ood: int, digits: int
) -> None:
    """Draw for real, from the same stream, sort the drawn scores again and compute each metric on them."""
    known, unknown = sample(n_id, n_id, n_ood, digits)
    replicates = 7
    replicated: list[np.ndarray] = []
    quantile = np.quantile

    def seen(values: np.ndarray, tails: tuple[float, float]) -> np.ndarray:
        replicated.append(values)
        return np.asarray(quantile(values, tails))

    monkeypatch.setattr(np, "quantile", seen)
    evaluate(known, unknown, replicates=replicates, seed=5)
    streams = [np.random.default_rng(child) for child in np.random.SeedSequence(5).spawn(2)]
    expected = []
    for _ in range(replicates):
        drawn = [
            np.sort(scores)[stream.integers(0, len(scores), size=len(scores), dtype=np.int64)]
            for scores, stream in zip((known, unknown), streams, strict=True)
        ]
        expected.append(one_by_one(*drawn))
    assert len(replicated) == len(NAMES)
    for name in NAMES:
        wanted = [each[name] for each in expected]
        assert any(values == pytest.approx(wanted, abs=1e-12) for values in replicated), name


def test_the_value_is_the_metric_and_lies_inside() -> None:
    known, unknown = sample(0, 300, 200, digits=2)
    found = evaluate(known, unknown, replicates=200)
    for name, value in one_by_one(known, unknown).items():
        estimate = getattr(found, name)
        assert estimate.value == value
        assert estimate.low < estimate.value < estimate.high
    assert (found.n_id, found.n_ood, found.replicates, found.confidence, found.seed) == (300, 200, 200, 0.95, 0)


def test_the_same_seed_gives_the_same_and_another_another() -> None:
    known, unknown = sample(1, 80, 90)
    first = evaluate(known, unknown, replicates=50, seed=3)
    assert evaluate(known, unknown, replicates=50, seed=3) == first
    assert ends(evaluate(known, unknown, replicates=50, seed=4)) != ends(first)


def test_neither_order_nor_scale_nor_chunks_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    known, unknown = sample(2, 120, 70, digits=1)
    first = evaluate(known, unknown, replicates=40)
    assert evaluate(known[::-1], np.sort(unknown), replicates=40) == first
    assert evaluate(np.exp(known), np.exp(unknown), replicates=40) == first
    monkeypatch.setattr(intervals, "CHUNK", 1)
    assert evaluate(known, unknown, replicates=40) == first


def test_redrawn_counts_are_multinomial() -> None:
    drawn = intervals.redraw(np.array([[0], [0], [0], [1]]), 3, 20_000, np.random.default_rng(0))
    assert (drawn.sum(1) == 4).all()
    assert (drawn[:, 2] == 0).all()
    law = scipy.stats.binom(4, 0.75).pmf(np.arange(5))
    np.testing.assert_allclose(np.bincount(drawn[:, 0].astype(int)) / 20_000, law, atol=0.015)


def test_an_image_is_drawn_with_all_its_versions() -> None:
    """Four equal versions are no more images than one: every figure that no number of images moves stays as it is."""
    known, unknown = sample(4, 60, 50, digits=1)
    plain, again = (
        evaluate(known, unknown, replicates=50),
        evaluate(known, unknown, versions=[known] * 4, replicates=50),
    )
    for name in ("auroc", "fpr95_id_positive", "fpr95_ood_positive", "detection_error"):
        one, other = getattr(plain, name), getattr(again, name)
        assert (other.value, other.low, other.high) == pytest.approx((one.value, one.low, one.high), abs=1e-12)
    assert again.n_id == 5 * 60


def test_with_versions_the_order_of_the_images_does_not_matter_and_the_value_is_that_of_all() -> None:
    known, unknown = sample(5, 40, 30, digits=1)
    moved = known + np.random.default_rng(0).normal(0.3, 0.3, 40).round(1)
    found = evaluate(known, unknown, versions=[moved], replicates=30)
    assert evaluate(known[::-1], unknown, versions=[moved[::-1]], replicates=30) == found
    assert found.auroc.value == one_by_one(np.concatenate((known, moved)), unknown)["auroc"]
    with pytest.raises(InputError, match=r"versions\[0\] has 39 scores and there are 40 ID images"):
        evaluate(known, unknown, versions=[moved[1:]])


def test_intervals_cover_the_truth() -> None:
    """AUROC of two normals one apart is Φ(1/√2); 95 % intervals cover it about 95 times in a hundred."""
    truth = scipy.stats.norm.cdf(1 / math.sqrt(2))
    rng = np.random.default_rng(0)
    covered = 0
    for seed in range(200):
        found = evaluate(rng.normal(size=150), rng.normal(1, size=150), replicates=200, seed=seed).auroc
        covered += found.low <= truth <= found.high
    assert 0.89 <= covered / 200 <= 0.985


def by_hand(known: np.ndarray, unknown: np.ndarray) -> dict[str, float]:
    """Every metric as it is defined, threshold by threshold over all images."""
    thresholds = np.unique(np.concatenate((known, unknown)))

    def fpr(positive: np.ndarray, negative: np.ndarray) -> float:
        return next((negative <= t).mean() for t in np.sort(positive) if (positive <= t).mean() >= 0.95)

    def precision(positive: np.ndarray, negative: np.ndarray) -> float:
        found = [((positive <= t).sum(), (negative <= t).sum()) for t in np.unique(positive)]
        gained = np.diff([0, *(right for right, _ in found)])
        return sum(gain * right / (right + wrong) for gain, (right, wrong) in zip(gained, found, strict=True)) / len(
            positive
        )

    return {
        "auroc": (
            (known[:, None] < unknown).astype(np.float64) + 0.5 * (known[:, None] == unknown).astype(np.float64)
        ).mean(),
        "fpr95_id_positive": fpr(known, unknown),
        "fpr95_ood_positive": fpr(-unknown, -known),
        "aupr_id_positive": precision(known, unknown),
        "aupr_ood_positive": precision(-unknown, -known),
        "detection_error": min(((known > t).mean() + (unknown <= t).mean()) / 2 for t in [-np.inf, *thresholds]),
    }


@pytest.mark.parametrize("digits", [1, 12])
def test_a_replicate_of_a_mean_draws_the_id_images_once_for_all_sets(digits: int) -> None:
    """Draw for real: one draw of the ID images, one of each set, and the mean of what each metric is on them."""
    rng = np.random.default_rng(11)
    known = rng.normal(size=40).round(digits)
    unknown = {name: rng.normal(1, 1.3, size=count).round(digits) for name, count in (("a", 25), ("b", 25), ("c", 30))}
    means = {"mean, near": ("a", "b"), "mean": ("a", "b", "c")}
    found = evaluate_sets(known, unknown, means, replicates=30, confidence=0.9, seed=5)
    of_id = np.random.default_rng(np.random.SeedSequence(5).spawn(1)[0])
    streams = {
        name: np.random.default_rng(np.random.SeedSequence(5, spawn_key=(1, *name.encode()))) for name in unknown
    }
    drawn: list[dict[str, dict[str, float]]] = []
    for _ in range(30):
        ids = np.sort(known)[of_id.integers(0, 40, size=40, dtype=np.int64)]
        drawn.append(
            {
                name: by_hand(ids, np.sort(scores)[streams[name].integers(0, len(scores), size=len(scores))])
                for name, scores in unknown.items()
            }
        )
    for mean, names in means.items():
        for metric in NAMES:
            low, high = np.quantile([np.mean([draw[name][metric] for name in names]) for draw in drawn], (0.05, 0.95))
            value = np.mean([by_hand(known, unknown[name])[metric] for name in names])
            estimate = found.means[mean][metric]
            assert (estimate.value, estimate.low, estimate.high) == pytest.approx((value, low, high), abs=1e-12)


def test_a_set_is_measured_alike_whatever_stands_beside_it() -> None:
    known, unknown = sample(6, 60, 50)
    alone, beside = (
        evaluate_sets(known, {**more, "a": unknown}, {}, replicates=40) for more in ({}, {"b": unknown + 1})
    )
    assert alone.sets["a"] == beside.sets["a"]
    assert evaluate_sets(known, {"": unknown}, {"mean": [""]}, replicates=40).sets[""] == evaluate(
        known, unknown, replicates=40
    )


def test_sets_of_one_size_are_drawn_apart_and_id_images_together() -> None:
    """Sets of a hundredth of the ID images bring all the spread of a mean, or none of it."""
    few, many = np.random.default_rng(0).normal(1, 1, 40), np.random.default_rng(1).normal(size=4_000)

    def width(estimate: Estimate) -> float:
        return estimate.high - estimate.low

    def widths(known: np.ndarray, unknown: np.ndarray) -> dict[str, float]:
        sets = {name: unknown for name in "abcd"}
        found = evaluate_sets(known, sets, {"one": ["a"], "mean": [*sets]}, replicates=600)
        return {name: width(found.means["mean"][name]) / width(found.means["one"][name]) for name in NAMES}

    free = widths(many, few)
    bound = widths(few - 1, many + 1)
    for name in ("auroc", "fpr95_id_positive", "detection_error"):
        assert free[name] == pytest.approx(0.5, abs=0.1), "four draws of four sets"
        assert bound[name] == pytest.approx(1, abs=0.1), "four sets against one draw"


def test_intervals_of_means_cover_the_truth() -> None:
    """FPR95 of normals 1 and 2 off is Φ(z95 − shift); as if each set had ID images of its own they are too narrow."""
    shifts = {"near": 1.0, "far": 2.0}
    truth = np.mean([scipy.stats.norm.cdf(scipy.stats.norm.ppf(0.95) - shift) for shift in shifts.values()])
    rng = np.random.default_rng(0)
    covered, blind = 0, 0
    for seed in range(200):
        known = rng.normal(size=200)
        sets = {name: rng.normal(shift, size=400) for name, shift in shifts.items()}
        found = evaluate_sets(known, sets, {"mean": [*sets]}, replicates=150, seed=seed)
        estimate = found.means["mean"]["fpr95_id_positive"]
        covered += estimate.low <= truth <= estimate.high
        each = [found.sets[name].fpr95_id_positive for name in sets]
        half = math.sqrt(sum(((one.high - one.low) / 2) ** 2 for one in each)) / 2
        blind += abs(estimate.value - truth) <= half
    assert 0.89 <= covered / 200 <= 0.985
    assert blind < covered - 5


def test_a_mean_is_over_sets_that_are_there() -> None:
    for names in ([], ["a", "b"], ["a", "a"]):
        with pytest.raises(InputError, match=r"the mean 'mean' is over .*; some of \['a'\] were expected, each once"):
            evaluate_sets([0.0], {"a": [1.0]}, {"mean": names})
    with pytest.raises(InputError, match=r"ood_scores of 'a'\[0\] is nan"):
        evaluate_sets([0.0], {"a": [math.nan]}, {})


def test_perfect_and_constant_scores() -> None:
    perfect = evaluate([0.0, 1.0], [2.0, 3.0, 4.0], replicates=20)
    assert ends(perfect) == [(1.0, 1.0), (0.0, 0.0), (0.0, 0.0), (1.0, 1.0), (1.0, 1.0), (0.0, 0.0)]
    constant = evaluate([1.0] * 5, [1.0] * 5, replicates=20)
    assert ends(constant)[:3] == [(0.5, 0.5), (1.0, 1.0), (1.0, 1.0)]


def test_it_goes_to_json() -> None:
    found = evaluate([0.0, 1.0], [2.0, 0.5], replicates=10)
    assert json.loads(json.dumps(found.to_dict()))["auroc"] == {
        "value": 0.75,
        "low": found.auroc.low,
        "high": found.auroc.high,
    }


def test_twenty_thousand_scores_are_quick_and_small() -> None:
    known, unknown = sample(3, 10_000, 10_000)
    start = time.process_time()
    evaluate(known, unknown, replicates=200)
    assert time.process_time() - start < 2
    tracemalloc.start()
    evaluate(known, unknown, replicates=20)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 20 * 2**20


@pytest.mark.parametrize(
    ("options", "told"),
    [({"replicates": 0}, "replicates is 0"), ({"confidence": 1.0}, "confidence is 1"), ({"seed": -1}, "seed is -1")],
)
def test_options_out_of_range(options: dict[str, Any], told: str) -> None:
    with pytest.raises(InputError, match=told):
        evaluate([0.0], [1.0], **options)


@pytest.mark.parametrize(("flagged", "n"), [(0, 1), (0, 50), (3, 50), (25, 50), (50, 50), (1, 1), (720, 10_000)])
@pytest.mark.parametrize("confidence", [0.9, 0.99])
def test_the_flagged_share_has_wilsons_interval(flagged: int, n: int, confidence: float) -> None:
    scores = np.concatenate((np.full(flagged, 2.0), np.full(n - flagged, 1.0)))
    found = flagged_share(scores, 1.0, confidence=confidence)
    reference = scipy.stats.binomtest(flagged, n).proportion_ci(confidence, method="wilson")
    assert found.value == flagged / n
    assert (found.low, found.high) == pytest.approx((reference.low, reference.high), abs=1e-9)
    assert 0 <= found.low <= found.value <= found.high <= 1


def test_a_share_of_nothing_is_told() -> None:
    with pytest.raises(InputError, match="scores is empty"):
        flagged_share([], 0.0)
    with pytest.raises(InputError, match="threshold is nan"):
        flagged_share([1.0], math.nan)
    with pytest.raises(InputError, match=r"scores\[0\] is nan"):
        flagged_share([math.nan], 0.0)
    with pytest.raises(InputError, match="confidence is 0"):
        flagged_share([1.0], 0.0, confidence=0)
