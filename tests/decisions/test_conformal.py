"""Conformal p-values against their definition, their ranges against scipy, and the promise against simulation."""

import itertools
import math
import subprocess
import sys
import time
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import scipy.stats
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mood.core.errors import InputError, PromiseError
from mood.decisions import Conformal, false_alarm_range

TIED = st.integers(-3, 3).map(float)
FREE = st.floats(allow_nan=False, allow_infinity=False)
ALPHA = st.one_of(
    st.sampled_from([0.01, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.5, 0.55, 0.6, 0.7, 0.9, 1 / 3, 0.07]),
    st.floats(1e-6, 1 - 1e-9),
    st.fractions(0, 1, max_denominator=200).filter(lambda share: 0 < share < 1).map(float),
)


def scores_of(minimum: int) -> st.SearchStrategy[list[float]]:
    return st.one_of(st.lists(TIED, min_size=minimum, max_size=40), st.lists(FREE, min_size=minimum, max_size=40))


@given(scores_of(1), scores_of(0))
def test_p_values_are_their_definition(calibration: list[float], scores: list[float]) -> None:
    found = Conformal(calibration).p_values(scores)
    n = len(calibration)
    assert found.tolist() == [(1 + sum(known >= score for known in calibration)) / (n + 1) for score in scores]


@given(scores_of(1), scores_of(0), ALPHA)
@settings(max_examples=400)
def test_the_threshold_says_what_the_p_values_say(calibration: list[float], scores: list[float], alpha: float) -> None:
    conformal = Conformal(calibration)
    scores = [*scores, *calibration, *(math.nextafter(known, math.inf) for known in calibration), math.inf, -math.inf]
    flagged = conformal.p_values(scores) <= alpha
    by_threshold = np.asarray(scores) > conformal.threshold(alpha)
    assert flagged.tolist() == by_threshold.tolist()


@pytest.mark.parametrize("n", [1, 9, 19, 20, 99, 199, 1000])
def test_an_alpha_that_is_a_possible_p_value_is_used_up(n: int) -> None:
    conformal = Conformal(np.arange(n))
    for k in range(1, n + 1):
        assert conformal.threshold(k / (n + 1)) == n - k


def test_what_it_keeps() -> None:
    conformal = Conformal(torch.tensor([3.0, 1.0, 2.0]))
    assert len(conformal) == 3
    assert conformal.scores.dtype == np.float64
    assert conformal.scores.tolist() == [1.0, 2.0, 3.0]
    given_scores = np.array([2.0, 1.0])
    Conformal(given_scores)
    assert given_scores.tolist() == [2.0, 1.0]
    assert conformal.p_values(torch.tensor([2.5, 0.0])).tolist() == [0.5, 1.0]
    assert conformal.p_values([]).shape == (0,)


def test_constant_scores_flag_nothing_and_a_higher_one() -> None:
    conformal = Conformal(np.full(99, 7.0))
    assert conformal.p_values([7.0, 7.1, 6.9]).tolist() == [1.0, 0.01, 1.0]
    assert conformal.threshold(0.05) == 7.0


@pytest.mark.parametrize("scores", [[], [1.0, math.nan], [1.0, math.inf], [-math.inf], [[1.0]], ["a"]])
def test_calibration_scores_that_cannot_calibrate(scores: Any) -> None:
    with pytest.raises(InputError, match="calibration scores"):
        Conformal(scores)


def test_nan_never_passes_for_an_ordinary_image() -> None:
    with pytest.raises(InputError, match=r"scores\[1\] is nan"):
        Conformal([1.0]).p_values([0.0, math.nan])


@pytest.mark.parametrize("alpha", [0.0, 1.0, -0.1, 1.5, math.nan])
def test_alpha_outside_is_refused(alpha: float) -> None:
    conformal = Conformal(np.arange(50))
    for ask in (
        conformal.threshold,
        conformal.check,
        conformal.realised_range,
        lambda value: false_alarm_range(value, 50, 50),
    ):
        with pytest.raises(InputError, match="alpha is"):
            ask(alpha)


def test_other_arguments_outside_are_refused() -> None:
    with pytest.raises(InputError, match="confidence is 1"):
        Conformal([1.0]).realised_range(0.5, 1)
    with pytest.raises(InputError, match="confidence is 0"):
        false_alarm_range(0.5, 5, 5, 0)
    with pytest.raises(InputError, match="n_calibration is 0"):
        false_alarm_range(0.5, 0, 5)
    with pytest.raises(InputError, match="n_test is 0"):
        false_alarm_range(0.5, 5, 0)


def test_an_alpha_that_cannot_be_kept_is_told_with_what_it_needs() -> None:
    with pytest.raises(PromiseError, match=r"0\.01 .* 50 calibration .* is 0\.01961; 0\.01 needs at least 99 "):
        Conformal(np.arange(50)).check(0.01)
    Conformal(np.arange(99)).check(0.01)
    Conformal(np.arange(50)).check(0.02)


@given(st.floats(1e-5, 0.9))
def test_the_number_of_images_that_is_named_is_the_smallest(alpha: float) -> None:
    needed = math.ceil(1 / Fraction(alpha)) - 1
    if needed < 2:
        return
    with pytest.raises(PromiseError) as refusal:
        Conformal([0.0]).check(alpha)
    named = int(str(refusal.value).split("needs at least ")[1].split()[0])
    assert 1 / (named + 1) <= alpha
    assert 1 / named > alpha
    assert abs(named - needed) <= 1


def test_ranges_where_nothing_can_be_flagged() -> None:
    conformal = Conformal([1.0, 2.0])
    assert conformal.threshold(0.1) == math.inf
    assert conformal.realised_range(0.1) == (0.0, 0.0)
    assert false_alarm_range(0.1, 2, 100) == (0.0, 0.0)


@pytest.mark.parametrize("n", [1, 5, 50, 999, 20_000])
@pytest.mark.parametrize("alpha", [0.001, 0.05, 0.5, 0.95])
@pytest.mark.parametrize("confidence", [0.5, 0.9, 0.9999])
def test_the_realised_range_is_that_of_the_beta_distribution(n: int, alpha: float, confidence: float) -> None:
    k = math.floor(Fraction(str(alpha)) * (n + 1))
    if not k:
        return
    found = Conformal(np.arange(n)).realised_range(alpha, confidence)
    tails = ((1 - confidence) / 2, 1 - (1 - confidence) / 2)
    assert found == pytest.approx(scipy.stats.beta.ppf(tails, k, n + 1 - k), rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("n_calibration", [1, 19, 300, 10_000])
@pytest.mark.parametrize("n_test", [1, 7, 400, 10_000])
@pytest.mark.parametrize(("alpha", "confidence"), [(0.05, 0.99), (0.5, 0.9), (0.9, 0.5)])
def test_the_false_alarm_range_is_that_of_the_beta_binomial(
    n_calibration: int, n_test: int, alpha: float, confidence: float
) -> None:
    k = math.floor(Fraction(str(alpha)) * (n_calibration + 1))
    if not k:
        return
    low, high = false_alarm_range(alpha, n_calibration, n_test, confidence)
    law = scipy.stats.betabinom(n_test, k, n_calibration + 1 - k)
    tail = (1 - confidence) / 2
    for share, probability in ((low, tail), (high, 1 - tail)):
        count = round(share * n_test)
        assert share == count / n_test
        assert law.cdf(count) >= probability - 1e-9
        assert law.cdf(count - 1) < probability + 1e-9


def test_a_million_images_are_quick() -> None:
    rng = np.random.default_rng(0)
    conformal = Conformal(rng.normal(size=100_000))
    scores = rng.normal(size=1_000_000)
    start = time.process_time()
    conformal.p_values(scores)
    conformal.realised_range(0.05)
    false_alarm_range(0.05, 100_000, 1_000_000)
    assert time.process_time() - start < 2


@pytest.mark.parametrize(("n", "alpha"), list(itertools.product([19, 50, 200], [0.05, 0.1, 0.3])))
def test_the_promise_holds_in_simulation(n: int, alpha: float) -> None:
    """The mean rate is k/(n+1) ≤ alpha, the realised one lies in its range 90 % of the time, the observed one 99 %."""
    rng = np.random.default_rng(n)
    splits, n_test = 4000, 60
    k = math.floor(Fraction(str(alpha)) * (n + 1))
    thresholds = np.array([Conformal(rng.random(n)).threshold(alpha) for _ in range(splits)])
    realised = 1 - thresholds
    observed = (rng.random((splits, n_test)) > thresholds[:, None]).mean(1)
    assert realised.mean() == pytest.approx(k / (n + 1), abs=4 * realised.std() / math.sqrt(splits))
    low, high = Conformal(np.arange(n)).realised_range(alpha)
    assert ((low <= realised) & (realised <= high)).mean() == pytest.approx(0.9, abs=0.02)
    low, high = false_alarm_range(alpha, n, n_test)
    assert ((low <= observed) & (observed <= high)).mean() >= 0.985


def test_decisions_need_no_torch() -> None:
    check = "import sys, mood.decisions; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", check], check=False).returncode == 0
