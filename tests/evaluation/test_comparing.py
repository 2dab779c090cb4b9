"""DeLong's variance against its definition over all pairs, and both tests against repeated draws."""

from typing import Any

import numpy as np
import pytest
import scipy.stats

from mood.core.errors import InputError
from mood.evaluation import (
    auroc,
    auroc_interval,
    compare_auroc,
    compare_mean_auroc,
    detection_error,
    mean_auroc_interval,
    over_trials,
    paired_bootstrap,
)
from mood.evaluation.metrics import detection_error_of


def drawn(seed: int, n_id: int = 60, n_ood: int = 45, better: float = 0.0) -> Any:
    """Two methods that share much of their noise, rounded so that some scores tie."""
    rng = np.random.default_rng(seed)
    known, unknown = rng.normal(size=n_id), rng.normal(1, 1, size=n_ood)
    second = known + rng.normal(0, 0.5, n_id), unknown + better + rng.normal(0, 0.5, n_ood)
    return (known.round(1), unknown.round(1)), tuple(part.round(1) for part in second)


def by_definition(first: Any, second: Any) -> tuple[float, float]:
    """Difference and its variance from the kernel of all pairs, as DeLong et al. write it."""
    kernels = [
        (known[:, None] < unknown[None, :]) + 0.5 * (known[:, None] == unknown[None, :])
        for known, unknown in (first, second)
    ]
    s10 = np.cov(np.stack([kernel.mean(1) for kernel in kernels]))
    s01 = np.cov(np.stack([kernel.mean(0) for kernel in kernels]))
    contrast = np.array([1.0, -1.0])
    n_id, n_ood = kernels[0].shape
    return kernels[0].mean() - kernels[1].mean(), contrast @ (s10 / n_id + s01 / n_ood) @ contrast


def test_a_mean_of_one_comparison_is_compared_as_that() -> None:
    first, second = drawn(0)
    alone = compare_auroc(first, second)
    sides = [[(("id", known), ("ood", unknown))] for known, unknown in (first, second)]
    mean = compare_mean_auroc(*sides)
    for name in ("difference", "low", "high", "p_value"):
        assert getattr(mean, name) == pytest.approx(getattr(alone, name))
    same = compare_mean_auroc(sides[0], sides[0])
    assert (same.difference, same.p_value) == (0, 1)


def test_means_over_sets_of_one_id_set_are_compared_by_what_each_image_adds() -> None:
    """The variance of a mean of two kernels, written out."""
    rng = np.random.default_rng(3)
    known = rng.normal(size=(2, 50))
    unknown = [rng.normal(1, 1, (2, count)) for count in (30, 40)]
    compared = compare_mean_auroc(
        *([(("id", known[way]), (f"ood {k}", part[way])) for k, part in enumerate(unknown)] for way in range(2))
    )
    kernels = [[(known[way][:, None] < part[way]).astype(float) for part in unknown] for way in range(2)]
    gaps = [one - other for one, other in zip(*kernels, strict=True)]
    assert compared.difference == pytest.approx(np.mean([gap.mean() for gap in gaps]))
    of_id = sum(gap.mean(1) for gap in gaps) / 2
    variance = of_id.var(ddof=1) / 50 + sum((gap.mean(0) / 2).var(ddof=1) / gap.shape[1] for gap in gaps)
    assert compared.p_value == pytest.approx(2 * scipy.stats.norm.sf(abs(compared.difference) / np.sqrt(variance)))
    assert compared.high - compared.difference == pytest.approx(scipy.stats.norm.ppf(0.975) * np.sqrt(variance))


@pytest.mark.parametrize("seed", range(4))
def test_delong_is_its_definition(seed: int) -> None:
    first, second = drawn(seed, better=0.4)
    difference, variance = by_definition(first, second)
    found = compare_auroc(first, second)
    z = difference / variance**0.5
    assert found.difference == pytest.approx(difference, abs=1e-12)
    assert found.p_value == pytest.approx(2 * scipy.stats.norm.sf(abs(z)), rel=1e-9)
    assert found.high - found.low == pytest.approx(2 * 1.959964 * variance**0.5, rel=1e-6)
    assert found.difference == pytest.approx(auroc(*first) - auroc(*second), abs=1e-12)


def test_the_interval_covers_as_often_as_it_says() -> None:
    truth = scipy.stats.norm.cdf(1 / 2**0.5)
    rng = np.random.default_rng(0)
    inside = 0
    for _ in range(400):
        found = auroc_interval(rng.normal(size=80), rng.normal(1, 1, size=80))
        inside += found.low <= truth <= found.high
    assert 0.92 <= inside / 400 <= 0.98


def test_the_mean_of_one_comparison_is_delongs() -> None:
    first, _ = drawn(7)
    one, mean = auroc_interval(*first), mean_auroc_interval([(("id", first[0]), ("ood", first[1]))])
    assert (mean.value, mean.low, mean.high) == pytest.approx((one.value, one.low, one.high), abs=1e-12)


def test_equal_comparisons_of_the_same_images_are_one_and_of_others_are_several() -> None:
    first, _ = drawn(8)
    known, unknown = ("id", first[0]), ("ood", first[1])
    one, same = mean_auroc_interval([(known, unknown)]), mean_auroc_interval([(known, unknown)] * 3)
    assert (same.low, same.high) == pytest.approx((one.low, one.high), abs=1e-12)
    apart = mean_auroc_interval([((f"id {k}", first[0]), (f"ood {k}", first[1])) for k in range(4)])
    assert apart.high - apart.low == pytest.approx((one.high - one.low) / 2, abs=1e-12)


def test_the_interval_of_a_mean_covers_as_often_as_it_says() -> None:
    """Three classes, each known in turn, and two sets against the first: most images are compared many times."""
    rng = np.random.default_rng(3)
    centres = np.array([0.0, 0.7, 1.5])
    truth = np.mean(
        [scipy.stats.norm.cdf(abs(a - b) / 2**0.5) for a in centres for b in centres if a != b]
        + [scipy.stats.norm.cdf(1 / 2**0.5)] * 2
    )
    inside, too_narrow = 0, 0
    for _ in range(400):
        groups = {str(place): rng.normal(centre, 1, 60) for place, centre in enumerate(centres)}
        comparisons = []
        for known, centre in zip(groups, centres, strict=True):
            for unknown, other in zip(groups, centres, strict=True):
                if known != unknown:  # the score of a class is the way to it, on the line where the two lie
                    sign = np.sign(other - centre)
                    comparisons.append(((known, sign * groups[known]), (unknown, sign * groups[unknown])))
        for name, shift in (("above", 1.0), ("below", -1.0)):
            comparisons.append((("0", shift * groups["0"]), (name, shift * rng.normal(shift, 1, 60))))
        found = mean_auroc_interval(comparisons)
        inside += found.low <= truth <= found.high
        blind = mean_auroc_interval(
            [((f"{k}a", one[1]), (f"{k}b", other[1])) for k, (one, other) in enumerate(comparisons)]
        )
        too_narrow += not blind.low <= truth <= blind.high
    assert 0.92 <= inside / 400 <= 0.98
    assert too_narrow / 400 > 0.1, "as if every comparison had images of its own"


def test_all_other_classes_together_are_each_of_them_with_the_weight_of_its_images() -> None:
    """Mean AUROC against all other classes pooled, and its variance from the kernel of all pairs, class by class."""
    rng = np.random.default_rng(4)
    sizes = {"a": 12, "b": 30, "c": 21}
    labels = np.repeat([*sizes], [*sizes.values()])
    scores = {name: rng.normal(labels != name, 1).round(1) for name in sizes}
    pairs = [(known, unknown) for known in sizes for unknown in sizes if unknown != known]
    found = mean_auroc_interval(
        (((k, scores[k][labels == k]), (u, scores[k][labels == u])) for k, u in pairs),
        weights=[sizes[unknown] / (len(labels) - sizes[known]) for known, unknown in pairs],
    )
    value, adds = 0.0, np.zeros(len(labels))
    for name, under in scores.items():
        inside, outside = under[labels == name], under[labels != name]
        kernel = (inside[:, None] < outside) + 0.5 * (inside[:, None] == outside)
        value += kernel.mean() / 3
        adds[labels == name] += kernel.mean(1) / len(inside) / 3
        adds[labels != name] += kernel.mean(0) / len(outside) / 3
    variance = sum(size * adds[labels == name].var(ddof=1) for name, size in sizes.items())
    assert found.value == pytest.approx(value, abs=1e-12)
    assert found.high - found.value == pytest.approx(scipy.stats.norm.ppf(0.975) * np.sqrt(variance), abs=1e-12)


@pytest.mark.parametrize("weights", [[1.0], [1.0, 1.0, 1.0], [2.0, -1.0], [0.0, 0.0], [np.nan, 1.0], [np.inf, 1.0]])
def test_there_is_a_weight_for_each_comparison(weights: list[float]) -> None:
    sides = [(("id", [1.0, 2.0]), (name, [1.0, 3.0])) for name in "ab"]
    with pytest.raises(InputError, match="weights must be 2 numbers from 0 up"):
        mean_auroc_interval(sides, weights=weights)


def test_both_sides_may_be_the_same_images() -> None:
    """An image and the same image moved by a constant: the AUROC of a shift, whose sides are drawn together."""
    plain = np.arange(40.0)
    paired = mean_auroc_interval([(("id", plain), ("id", plain + 0.5))])
    free = auroc_interval(plain, plain + 0.5)
    assert paired.value == pytest.approx(free.value)
    assert paired.high - paired.low < (free.high - free.low) / 10


def test_without_a_difference_the_test_errs_as_often_as_it_says() -> None:
    rng = np.random.default_rng(1)
    rejected = 0
    for _ in range(400):
        known, unknown = rng.normal(size=70), rng.normal(1, 1, size=70)
        noise = [rng.normal(0, 0.7, (2, 70)) for _ in range(2)]
        methods = [(known + part[0], unknown + part[1]) for part in noise]
        rejected += compare_auroc(*methods).p_value < 0.05
    assert 0.02 <= rejected / 400 <= 0.09


def test_the_bootstrap_agrees_with_delong() -> None:
    first, second = drawn(5, 200, 200, better=0.3)
    closed, drawn_again = compare_auroc(first, second), paired_bootstrap(first, second, replicates=2000)
    assert drawn_again.difference == pytest.approx(closed.difference, abs=1e-12)
    assert drawn_again.low == pytest.approx(closed.low, abs=0.01)
    assert drawn_again.high == pytest.approx(closed.high, abs=0.01)


def test_the_bootstrap_takes_any_metric_and_draws_the_same_images_for_both() -> None:
    first, second = drawn(6, better=0.2)
    found = paired_bootstrap(first, second, detection_error_of, replicates=100)
    assert found.difference == pytest.approx(detection_error(*first) - detection_error(*second), abs=1e-12)
    same = paired_bootstrap(first, first, replicates=50)
    assert (same.difference, same.low, same.high, same.p_value) == (0, 0, 0, 1)


def test_a_method_that_is_never_worse_is_told_from_the_other() -> None:
    known, unknown = np.arange(50.0), np.arange(50.0) + 60
    blind = np.zeros(50)
    assert compare_auroc((known, unknown), (blind, blind)).p_value == 0
    assert paired_bootstrap((known, unknown), (blind, blind), replicates=199).p_value == 0.01
    assert compare_auroc((known, unknown), (known, unknown)).p_value == 1


def test_infinite_scores_tie() -> None:
    assert auroc_interval([0.0, np.inf], [np.inf, np.inf]).value == 0.75


def test_trials() -> None:
    spread = over_trials([0.97, 0.98, 0.99])
    assert (spread.mean, spread.sd, spread.trials) == (pytest.approx(0.98), pytest.approx(0.01), 3)
    assert over_trials([0.5]).sd is None
    with pytest.raises(InputError, match="no trials"):
        over_trials([])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: auroc_interval([1.0], [1.0, 2.0]), "at least 2"),
        (
            lambda: compare_auroc(([1.0, 2.0], [1.0, 2.0]), ([1.0, 2.0, 3.0], [1.0, 2.0])),
            "in one method and 3",
        ),
        (lambda: auroc_interval([1.0, 2.0], [1.0, 2.0], confidence=1.0), "confidence"),
        (lambda: mean_auroc_interval([]), "no comparisons"),
        (
            lambda: compare_mean_auroc(
                [(("id", [1.0, 2.0]), ("a", [1.0, 2.0]))], [(("id", [1.0, 2.0]), ("b", [1.0, 2.0]))]
            ),
            r"images of \['id', 'a'\] and the second of \['id', 'b'\]",
        ),
        (lambda: mean_auroc_interval([(("id", [1.0, 2.0]), ("id", [1.0, 2.0, 3.0]))]), "'id' has 3 images"),
        (lambda: mean_auroc_interval([(("id", [1.0]), ("ood", [1.0, 2.0]))]), "at least 2"),
        (lambda: paired_bootstrap(([1.0], [2.0]), ([1.0], [2.0]), replicates=0), "replicates"),
        (lambda: paired_bootstrap(([1.0], [2.0]), ([1.0], [2.0]), seed=-1), "seed"),
        (lambda: auroc_interval([1.0, float("nan")], [1.0, 2.0]), "nan"),
    ],
)
def test_what_is_wrong_is_told(call, message) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(InputError, match=message):
        call()
