"""Risk over coverage, open-set classification and detection error against their definitions, counted by hand."""

from itertools import pairwise, permutations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mood.core.errors import InputError
from mood.evaluation import (
    accuracy,
    aurc,
    aurc_interval,
    detection_error,
    excess_aurc,
    mean_oscr_interval,
    oscr,
    oscr_interval,
)

TIED = st.lists(st.integers(-2, 2).map(float), min_size=1, max_size=12)


def aurc_by_hand(scores: list[float], wrong: list[bool]) -> float:
    """The mean over every order that ties allow."""
    areas = []
    for order in permutations(range(len(scores))):
        if all(scores[a] <= scores[b] for a, b in pairwise(order)):
            errors = [wrong[place] for place in order]
            areas.append(sum(sum(errors[:k]) / k for k in range(1, len(order) + 1)) / len(order))
    return sum(areas) / len(areas)


@given(st.lists(st.tuples(st.integers(0, 2).map(float), st.booleans()), min_size=1, max_size=6))
def test_aurc_is_the_mean_over_the_orders_that_ties_allow(rows: list[tuple[float, bool]]) -> None:
    scores, wrong = [list(part) for part in zip(*rows, strict=True)]
    assert aurc(scores, wrong) == pytest.approx(aurc_by_hand(scores, wrong), abs=1e-12)


def test_excess_is_zero_for_the_best_order_and_positive_for_any_other() -> None:
    wrong = np.array([False, False, True, True])
    assert excess_aurc([0.1, 0.2, 0.3, 0.4], wrong) == pytest.approx(0)
    assert excess_aurc([0.4, 0.2, 0.3, 0.1], wrong) > 0.3


@given(TIED, TIED, st.integers(0, 2**12 - 1))
def test_oscr_is_an_area(known: list[float], unknown: list[float], bits: int) -> None:
    right = [bool(bits >> place & 1) for place in range(len(known))]
    thresholds = [-np.inf, *sorted({*known, *unknown})]
    ccr = [sum(ok and s <= t for ok, s in zip(right, known, strict=True)) / len(known) for t in thresholds]
    fpr = [sum(s <= t for s in unknown) / len(unknown) for t in thresholds]
    assert oscr(known, right, unknown) == pytest.approx(float(np.trapezoid(ccr, fpr)), abs=1e-12)


@given(TIED, TIED)
def test_detection_error_tries_every_threshold(known: list[float], unknown: list[float]) -> None:
    tried = [
        (sum(s > t for s in known) / len(known) + sum(s <= t for s in unknown) / len(unknown)) / 2
        for t in [-np.inf, *known, *unknown]
    ]
    assert detection_error(known, unknown) == pytest.approx(min(tried), abs=1e-14)


def images(seed: int, count: int, unsure: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """Scores that tie here and there, and errors that are more frequent among high ones."""
    rng = np.random.default_rng(seed)
    scores = rng.normal(unsure, 1, count).round(1)
    return scores, rng.uniform(size=count) < 1 / (1 + np.exp(2 - scores))


@pytest.mark.parametrize("excess", [False, True])
def test_the_interval_of_aurc_is_the_spread_of_draws_with_replacement(excess: bool) -> None:
    metric = excess_aurc if excess else aurc
    scores, wrong = images(0, 80)
    found = aurc_interval(scores, wrong, excess=excess, replicates=4000)
    assert found.value == pytest.approx(metric(scores, wrong), abs=1e-12)
    rng = np.random.default_rng(1)
    drawn = [metric(scores[picks], wrong[picks]) for picks in rng.integers(0, 80, (4000, 80))]
    low, high = np.quantile(drawn, (0.025, 0.975))
    assert found.low == pytest.approx(low, abs=0.01)
    assert found.high == pytest.approx(high, abs=0.01)
    order = rng.permutation(80)
    assert aurc_interval(scores[order], wrong[order], excess=excess, replicates=4000) == pytest.approx(found)


def test_the_interval_of_oscr_is_delongs_with_wrong_images_counted_as_nothing() -> None:
    known, wrong = images(0, 60)
    unknown = images(1, 45, unsure=1.0)[0]
    right = ~wrong
    kernel = (known[:, None] < unknown) + 0.5 * (known[:, None] == unknown)
    kernel = kernel * right[:, None]
    deviation = np.sqrt(kernel.mean(1).var(ddof=1) / 60 + kernel.mean(0).var(ddof=1) / 45)
    found = oscr_interval(known, right, unknown)
    assert found.value == pytest.approx(kernel.mean())
    assert found.high - found.value == pytest.approx(1.959963985 * deviation)
    assert found.value - found.low == pytest.approx(1.959963985 * deviation)
    nothing = oscr_interval(known, np.zeros(60, bool), unknown)
    assert (nothing.low, nothing.value, nothing.high) == (0, 0, 0)


def test_in_a_mean_of_oscr_an_id_image_counts_once() -> None:
    known, wrong = images(0, 60)
    sets = [images(seed, count, unsure=1.0)[0] for seed, count in ((1, 45), (2, 45), (3, 20))]
    kernels = [((known[:, None] < part) + 0.5 * (known[:, None] == part)) * ~wrong[:, None] for part in sets]
    of_id = np.mean([kernel.mean(1) for kernel in kernels], axis=0)
    variance = of_id.var(ddof=1) / 60
    variance += sum((kernel.mean(0) / 3).var(ddof=1) / kernel.shape[1] for kernel in kernels)
    found = mean_oscr_interval(known, ~wrong, sets)
    assert found.value == pytest.approx(np.mean([kernel.mean() for kernel in kernels]))
    assert found.high - found.value == pytest.approx(1.959963985 * np.sqrt(variance))
    assert found.value - found.low == pytest.approx(1.959963985 * np.sqrt(variance))
    nothing = mean_oscr_interval(known, np.zeros(60, bool), sets)
    assert (nothing.low, nothing.value, nothing.high) == (0, 0, 0)


def test_the_intervals_hold_the_truth_as_often_as_they_say() -> None:
    known, wrong = images(0, 200_000)
    truth = {"aurc": aurc(known, wrong), "oscr": oscr(known, ~wrong, images(1, 200_000, unsure=1.0)[0])}
    inside = dict.fromkeys(truth, 0)
    for seed in range(2, 302):
        known, wrong = images(seed, 600)
        found = {
            "aurc": aurc_interval(known, wrong, replicates=200),
            "oscr": oscr_interval(known, ~wrong, images(seed + 1000, 600, unsure=1.0)[0]),
        }
        for name, estimate in found.items():
            inside[name] += estimate.low <= truth[name] <= estimate.high
    # Three standard deviations of 95 % of 300 are 3.8 %.
    assert all(0.91 * 300 <= hits <= 0.985 * 300 for hits in inside.values()), inside


def test_accuracy() -> None:
    assert accuracy([0, 1, 2, 2], [0, 1, 1, 2]) == 0.75


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: accuracy([], []), "N ≥ 1"),
        (lambda: accuracy([1], [1, 2]), "same"),
        (lambda: aurc([1.0, 2.0], [True]), "bool"),
        (lambda: aurc([1.0], [1]), "bool"),
        (lambda: aurc([], np.array([], bool)), "at least one"),
        (lambda: aurc_interval([1.0], [True], replicates=0), "replicates is 0"),
        (lambda: aurc_interval([1.0], [True], confidence=1.0), "confidence 1.0"),
        (lambda: aurc_interval([1.0], [True], seed=-1), "seed -1"),
        (lambda: oscr_interval([1.0], [True], [2.0, 3.0]), "1 ID and 2 OOD"),
        (lambda: oscr_interval([1.0, 2.0], [True, True], [2.0, 3.0], confidence=0.0), "confidence is 0"),
        (lambda: mean_oscr_interval([1.0, 2.0], [True, True], []), "no set"),
        (lambda: mean_oscr_interval([1.0, 2.0], [True, True], [[2.0, 3.0], [1.0]]), "2 ID and 1 OOD"),
        (lambda: oscr([1.0], [True, False], [2.0]), "id_right"),
        (lambda: oscr([], np.array([], bool), [2.0]), "empty"),
        (lambda: oscr([1.0], [False], [float("nan")]), "nan"),
    ],
)
def test_what_is_wrong_is_told(call, message) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(InputError, match=message):
        call()
