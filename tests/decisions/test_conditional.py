"""Calibration-conditional levels against the paper's closed forms, exact probabilities and simulation."""

import math
from fractions import Fraction
from itertools import combinations

import numpy as np
import pytest
import scipy.stats

from mood.core.errors import InputError, PromiseError
from mood.decisions import Conditional, Conformal
from mood.decisions.conditional import BOUNDS, images_needed, levels


@pytest.mark.parametrize(("n", "confidence"), [(2, 0.9), (7, 0.8), (20, 0.95), (101, 0.9)])
def test_simes_is_the_closed_form_of_the_paper(n: int, confidence: float) -> None:
    """Bates et al., proposition 1: b_{n+1−i} = 1 − δ^{1/k} (i ⋯ (i−k+1) / (n ⋯ (n−k+1)))^{1/k}."""
    k, delta = n // 2, 1 - confidence
    expected = {}
    for i in range(1, n + 1):
        share = Fraction(1)
        for j in range(k):
            share *= Fraction(max(i - j, 0), n - j)
        expected[n + 1 - i] = 1 - (delta * float(share)) ** (1 / k)
    found = levels(n, confidence, "simes")
    np.testing.assert_allclose(found[:n], [expected[rank] for rank in range(1, n + 1)], rtol=1e-12)
    assert found[n] == 1


def test_dkwm_is_the_closed_form_of_the_paper() -> None:
    found = levels(50, 0.9, "dkwm")
    width = math.sqrt(math.log(2 / 0.1) / 100)
    np.testing.assert_allclose(found[:50], [min(1, rank / 50 + width) for rank in range(1, 51)], rtol=1e-14)


def exactly(bounds: np.ndarray) -> float:
    """P(U_(i) ≤ b_i for all i), by integrating out one ordered draw after the other in exact arithmetic."""
    edges = [Fraction(value).limit_denominator(10**9) for value in bounds]
    # P(U_(1) ≤ b_1, …) = n! ∫_{u_1 ≤ b_1} ∫_{u_1 ≤ u_2 ≤ b_2} …; from the last variable inwards.
    poly = [Fraction(1)]
    for edge in reversed(edges):
        anti = [Fraction(0)] + [coefficient / (power + 1) for power, coefficient in enumerate(poly)]
        top = sum(coefficient * edge**power for power, coefficient in enumerate(anti))
        poly = [top - anti[0], *(-coefficient for coefficient in anti[1:])]
    return float(poly[0] * math.factorial(len(edges)))


def test_the_exact_probability_of_the_reference_is_right() -> None:
    assert exactly(np.ones(5)) == pytest.approx(1)
    assert exactly(np.array([0.3])) == pytest.approx(0.3)
    # Of two draws the smaller is below a, the larger below b: b² − (b − a)².
    assert exactly(np.array([0.2, 0.7])) == pytest.approx(0.7**2 - 0.5**2)


@pytest.mark.parametrize("bound", BOUNDS)
@pytest.mark.parametrize("n", [1, 2, 5, 12])
@pytest.mark.parametrize("confidence", [0.5, 0.9, 0.99])
def test_all_levels_hold_at_once_with_the_confidence(bound: str, n: int, confidence: float) -> None:
    held = exactly(levels(n, confidence, bound)[:n])
    slack = 0.015 if bound == "monte-carlo" else 1e-6
    assert held >= confidence - slack
    if bound == "simes" and n > 1:
        # The generalised Simes inequality is an equality (Sarkar 2008).
        assert held == pytest.approx(confidence, abs=1e-6)


@pytest.mark.parametrize("bound", BOUNDS)
@pytest.mark.parametrize("n", [50, 300])
def test_the_rate_of_nine_sets_in_ten_is_kept_at_every_alpha(bound: str, n: int) -> None:
    """With uniform scores, 1 − threshold is the rate itself."""
    rng = np.random.default_rng(n)
    kept = []
    for _ in range(3000):
        made = Conditional(rng.random(n), bound=bound)
        # The supremum over levels: the rate at each step of the p-values.
        rates = 1 - made.scores[::-1]
        kept.append((rates <= made.levels[:n]).all())
    assert np.mean(kept) >= 0.9 - 4 * math.sqrt(0.09 / 3000)


@pytest.mark.parametrize("bound", BOUNDS)
def test_levels_rise_and_are_above_the_marginal_ones(bound: str) -> None:
    for n in (1, 3, 40, 500):
        found = levels(n, 0.9, bound)
        assert (np.diff(found) >= 0).all()
        assert (found >= np.arange(1, n + 2) / (n + 1) - 1e-12).all()
        assert found[-1] == 1
        assert not found.flags.writeable


@pytest.mark.parametrize("bound", BOUNDS)
def test_the_threshold_says_what_the_p_values_say(bound: str) -> None:
    rng = np.random.default_rng(3)
    made = Conditional(rng.integers(0, 300, 400).astype(float), bound=bound)
    scores = np.concatenate([made.scores, np.arange(-2.0, 303.0, 0.5)])
    for alpha in (0.02, 0.05, 0.1, 0.5):
        assert np.array_equal(made.p_values(scores) <= alpha, scores > made.threshold(alpha))
    marginal = Conformal(made.scores)
    assert (made.p_values(scores) >= marginal.p_values(scores)).all()


def test_where_nothing_can_be_flagged() -> None:
    made = Conditional([1.0, 2.0])
    assert made.threshold(0.05) == math.inf
    assert made.allowed(0.05, 10) == (0, 0)
    assert made.guarantee(0.05).realised == (0, 0)


def test_the_guarantee_states_its_size() -> None:
    made = Conditional(np.arange(1000.0))
    found = made.guarantee(0.05)
    k = made.flagged_ranks(0.05)
    assert 0 < k < 50
    assert found.realised == pytest.approx(scipy.stats.beta.ppf([0.05, 0.95], k, 1001 - k), rel=1e-9)
    assert (found.rate, found.confidence, found.smallest) == (0.05, 0.9, made.levels[0])
    assert "at most 5.0% of all future known images, with 90 % confidence over calibration sets (Simes)" in (
        found.sentence
    )
    law = scipy.stats.betabinom(200, k, 1001 - k)
    assert made.allowed(0.05, 200) == pytest.approx(law.ppf([0.005, 0.995]) / 200)


@pytest.mark.parametrize("bound", BOUNDS)
@pytest.mark.parametrize(("alpha", "confidence"), [(0.3, 0.9), (0.1, 0.8), (0.05, 0.95)])
def test_the_number_of_images_that_is_named_is_the_smallest(bound: str, alpha: float, confidence: float) -> None:
    needed = images_needed(alpha, confidence, bound)
    assert levels(needed, confidence, bound)[0] <= alpha
    assert needed == 1 or levels(needed - 1, confidence, bound)[0] > alpha
    with pytest.raises(PromiseError, match=f"{alpha:g} needs at least {needed} calibration images"):
        Conditional(np.arange(max(1, needed // 2)), confidence=confidence, bound=bound).check(alpha)
    Conditional(np.arange(needed), confidence=confidence, bound=bound).check(alpha)


def test_arguments_outside_are_refused() -> None:
    with pytest.raises(InputError, match="confidence is 1"):
        Conditional([1.0], confidence=1.0)
    with pytest.raises(InputError, match="bound is 'bonferroni'; simes, dkwm, monte-carlo were expected"):
        Conditional([1.0], bound="bonferroni")
    with pytest.raises(InputError, match="cannot be simulated with .* draws; take the bound simes or dkwm"):
        levels(100, 1 - 1e-6, "monte-carlo")
    with pytest.raises(InputError, match="alpha is 0"):
        Conditional([1.0]).threshold(0.0)
    with pytest.raises(PromiseError, match="would need more than"):
        images_needed(1e-9, 0.9, "dkwm")
    with pytest.raises(PromiseError, match="would need more than"):
        images_needed(1e-9, 0.9, "simes")


def test_a_simulated_level_is_the_same_twice() -> None:
    first = levels(70, 0.9, "monte-carlo").copy()
    levels.cache_clear()
    assert np.array_equal(levels(70, 0.9, "monte-carlo"), first)


def test_no_two_bounds_are_one() -> None:
    for one, other in combinations(BOUNDS, 2):
        assert not np.array_equal(levels(50, 0.9, one), levels(50, 0.9, other))
