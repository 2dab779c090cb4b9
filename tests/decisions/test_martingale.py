"""Bets and the jumper: against the sum over all ways of jumping, closed forms, and Ville's inequality."""

import itertools
import math

import numpy as np
import pytest
import scipy.integrate
import scipy.special

from mood.core.errors import InputError
from mood.decisions import Jumper, linear_bets, power_bets
from mood.decisions.martingale import EXPONENTS, RATES, SHARES, log_mean


def pure_powers(exponents):
    return lambda p: exponents * p[..., None] ** (exponents - 1)


@pytest.mark.parametrize("bets", [power_bets, linear_bets])
def test_each_bet_is_fair_on_even_p_values(bets):
    for index in range(bets(np.ones(1)).shape[-1]):
        total, error = scipy.integrate.quad(lambda p, k=index: bets(np.array([p]))[0, k], 0, 1, limit=200)
        assert total == pytest.approx(1, abs=max(1e-6, 10 * error))
    assert (bets(np.array([1e-300, 1e-9, 0.3, 1.0])) >= 0).all()


def test_the_bets_are_their_definition():
    found = power_bets(np.array([0.02, 0.7]))
    for row, p in zip(found, (0.02, 0.7), strict=True):
        expected = [1.0] + [1 + w * (e * p ** (e - 1) - 1) for e in EXPONENTS for w in SHARES]
        assert row == pytest.approx(expected, rel=1e-12)
    assert linear_bets(np.array([0.2])) == pytest.approx(np.array([[1.3, 1.0, 0.7]]))


@pytest.mark.parametrize("rate", [0.0, 0.01, 0.3, 1.0])
def test_a_jumper_is_the_sum_over_all_ways_of_jumping(rate):
    p_values = np.array([0.4, 0.01, 0.9, 0.03, 0.2])
    odds = linear_bets(p_values)
    total = 0.0
    for path in itertools.product(range(3), repeat=5):
        weight = 1 / 3
        for before, after in itertools.pairwise(path):
            weight *= rate / 3 + (1 - rate) * (before == after)
        total += weight * math.prod(odds[step, bet] for step, bet in enumerate(path))
    logs = Jumper.start(linear_bets, (rate,)).play(p_values)
    assert math.exp(logs[-1]) == pytest.approx(total, rel=1e-12)


def test_without_jumps_it_is_the_power_mixture_in_closed_form():
    """∫ εⁿ (∏p)^(ε-1) dε over (0, 1) = e^s γ(n+1, s) / s^(n+1), s = -Σ log p (Vovk et al., 2003)."""
    grid = (np.arange(4000) + 0.5) / 4000
    p_values = np.random.default_rng(0).beta(0.5, 1.5, 40)
    logs = Jumper.start(pure_powers(grid), (0.0,)).play(p_values)
    for n in (1, 10, 40):
        s = -np.log(p_values[:n]).sum()
        log_gamma = math.log(scipy.special.gammainc(n + 1, s)) + math.lgamma(n + 1)
        assert logs[n - 1] == pytest.approx(s + log_gamma - (n + 1) * math.log(s), abs=1e-4)


def test_the_capital_is_the_mean_over_rates_and_does_not_depend_on_batches_or_neighbours():
    p_values = np.random.default_rng(1).random((3, 50))
    whole = Jumper.start(power_bets, streams=(3,)).play(p_values)
    alone = [np.exp(Jumper.start(power_bets, (rate,)).play(p_values[2])) for rate in RATES]
    assert np.exp(whole[2]) == pytest.approx(np.mean(alone, 0), rel=1e-12)
    jumper = Jumper.start(power_bets)
    parts = [jumper.play(p_values[2, start:stop]) for start, stop in ((0, 1), (1, 1), (1, 30), (30, 50))]
    assert np.concatenate(parts).tolist() == whole[2].tolist()


def test_no_capital_over_or_underflows():
    jumper = Jumper.start(power_bets)
    assert np.isfinite(jumper.play(np.full(20_000, 1e-18))).all()
    assert jumper.play(np.full(1, 1e-18))[0] > 1e5
    assert np.isfinite(jumper.play(np.full(20_000, 1.0))).all()
    assert log_mean(np.array([-2000.0, -2000.0])) == pytest.approx(-2000)
    assert log_mean(np.array([5000.0, 0.0])) == pytest.approx(5000 - math.log(2))


@pytest.mark.parametrize("rates", [(), (-0.1,), (0.5, 1.1), (math.nan,)])
def test_rates_outside_are_refused(rates):
    with pytest.raises(InputError, match="rates are"):
        Jumper.start(power_bets, rates)


@pytest.mark.parametrize("bets", [power_bets, linear_bets])
def test_even_p_values_raise_no_more_alarms_than_ville_allows(bets):
    """At level 10 %, for the power of a small simulation: 2000 streams, three standard errors."""
    p_values = np.random.default_rng(2).random((2000, 1000))
    logs = Jumper.start(bets, streams=(2000,)).play(p_values)
    assert (logs.max(1) >= math.log(10)).mean() <= 0.1 + 3 * math.sqrt(0.09 / 2000)
    assert (logs.max(1) >= math.log(10)).mean() > 0.001


def test_a_stream_that_breaks_late_is_caught_all_the_same():
    random = np.random.default_rng(3)
    p_values = np.concatenate((random.random(5000), random.random(300) ** 4))
    logs = Jumper.start(power_bets).play(p_values)
    assert logs[:5000].max() < math.log(100) <= logs.max()
