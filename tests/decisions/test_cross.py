"""Cross-conformal p-values against their definition, the proven rate against the papers, both against simulation."""

import math
from typing import Any

import numpy as np
import pytest

from mood.core.errors import InputError, PromiseError
from mood.decisions import Cross, deal, proven_rate


def test_p_values_are_their_definition() -> None:
    rng = np.random.default_rng(0)
    held, folds = rng.integers(0, 12, 37).astype(float), deal(37, 5)
    rng.shuffle(folds)
    table = rng.integers(-1, 14, (60, 5)).astype(float)
    found = Cross(held, folds).p_values(table)
    expected = [(1 + sum(s >= row[fold] for s, fold in zip(held, folds, strict=True))) / 38 for row in table]
    assert found.tolist() == expected


def test_folds_are_dealt_evenly() -> None:
    for count, folds in ((10, 2), (10, 3), (10, 10), (203, 20)):
        sizes = np.bincount(deal(count, folds))
        assert len(sizes) == folds
        assert sizes.max() - sizes.min() <= 1
    for folds in (1, 11):
        with pytest.raises(InputError, match=f"folds is {folds}; a whole number from 2 to the number of images, 10"):
            deal(10, folds)


def test_the_proven_rate_is_that_of_the_papers() -> None:
    """Barber et al. 2021: 2α for leave-one-out (theorem 1), and 2α + min of two terms for K folds (theorem 4)."""
    assert proven_rate(0.05, 200, 200) == pytest.approx(0.1)
    for alpha, n, folds in ((0.05, 200, 10), (0.1, 1000, 5), (0.01, 60, 20)):
        theirs = 2 * alpha + min(2 * (1 - 1 / folds) / (n / folds + 1), (1 - folds / n) / (folds + 1))
        # The first of the terms is sharper here by 2 α (K − 1) / (n + K), as before its rounding in the paper.
        assert 2 * alpha <= proven_rate(alpha, n, folds) <= theirs + 1e-12
    # Folds of two sizes: only the mean of p-values is proven.
    assert proven_rate(0.05, 203, 10) == pytest.approx(2 * (9 + 0.05 * 204) / 213)
    assert proven_rate(0.9, 20, 4) == 1


@pytest.mark.parametrize("folds", [2, 5, 20])
def test_the_rate_is_near_alpha_and_below_what_is_proven(folds: int) -> None:
    """A fit that depends on its rows: the distance from their mean in three dimensions, few rows."""
    rng, n, rates = np.random.default_rng(folds), 40, []
    for _ in range(800):
        rows, new = rng.normal(size=(n, 3)), rng.normal(size=(50, 3))
        dealt = deal(n, folds)
        centres = [rows[dealt != fold].mean(0) for fold in range(folds)]
        held = np.concatenate(
            [np.linalg.norm(rows[dealt == fold] - centre, axis=1) for fold, centre in enumerate(centres)]
        )
        table = np.stack([np.linalg.norm(new - centre, axis=1) for centre in centres], axis=1)
        rates.append((Cross(held, dealt).p_values(table) <= 0.1).mean())
    error = 4 * np.std(rates) / math.sqrt(len(rates))
    assert np.mean(rates) <= proven_rate(0.1, n, folds)
    assert np.mean(rates) == pytest.approx(0.1, abs=0.015 + error)


def test_what_it_keeps_and_says() -> None:
    made = Cross([3.0, 1.0, 2.0, 0.0], [1, 1, 0, 0])
    assert (len(made), made.count, made.threshold(0.3)) == (4, 2, None)
    assert made.scores.tolist() == [0.0, 2.0, 1.0, 3.0]
    found = Cross(np.arange(200.0), deal(200, 10)).guarantee(0.05)
    assert found.rate == proven_rate(0.05, 200, 10) > 0.1
    assert "about 5.0% of known images where the 10 folds' fits agree" in found.sentence
    assert f"at most {found.rate:.1%} on average" in found.sentence
    assert found.realised is None
    low, high = Cross(np.arange(200.0), deal(200, 10)).allowed(0.05, 300)
    assert low == 0
    assert found.rate < high < 0.4
    with pytest.raises(PromiseError, match="needs at least 19"):
        made.check(0.05)


@pytest.mark.parametrize("folds", [[0, 0], [0, 2], [1, 2], [0.0, 1.0], [0, 1, 0], [[0, 1]]])
def test_folds_that_are_none(folds: Any) -> None:
    with pytest.raises(InputError, match="folds must be"):
        Cross([1.0, 2.0], folds)


def test_scores_of_another_shape_and_nan_are_refused() -> None:
    made = Cross([1.0, 2.0], [0, 1])
    for wrong in ([1.0, 2.0], [[1.0]], [[1.0, 2.0, 3.0]]):
        with pytest.raises(InputError, match=r"scores must be \(N, 2\)"):
            made.p_values(wrong)
    with pytest.raises(InputError, match="1 of 2 images have a score that is nan"):
        made.p_values([[1.0, math.nan], [1.0, 1.0]])
    assert made.p_values(np.empty((0, 2))).shape == (0,)


def test_constant_scores_flag_nothing() -> None:
    made = Cross(np.zeros(50), deal(50, 5))
    assert (made.p_values(np.zeros((3, 5))) == 1).all()
    assert made.p_values(np.ones((1, 5))).tolist() == [1 / 51]
