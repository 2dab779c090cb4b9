"""The paper's score against numpy, and against the official code's own output."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from mood import scores
from mood.core.errors import InputError
from mood.core.features import Features

GOLDEN = Path(__file__).parents[1] / "golden" / "mood_score.io.safetensors"


def reference(fit_rows: np.ndarray, queries: np.ndarray) -> np.ndarray:
    """Section 3 of the paper, as the official code has it: np.cov(bias=True), np.linalg.pinv, a quadratic form."""
    fit_rows, queries = (rows / (np.linalg.norm(rows, axis=1, keepdims=True) + 1e-10) for rows in (fit_rows, queries))
    precision = np.linalg.pinv(np.cov(fit_rows, rowvar=False, bias=True))
    offsets = queries - fit_rows.mean(axis=0)
    return np.array([offset @ precision @ offset for offset in offsets])


def test_golden_file():
    golden = load_file(GOLDEN)
    found = scores.fit("mood", Features(golden["train"]))(Features(golden["test"]))
    np.testing.assert_allclose(found.numpy(), golden["score"], rtol=1e-9, atol=0)


def test_formula():
    rng = np.random.default_rng(0)
    fit_rows, queries = rng.normal(2, 1, (300, 9)) * np.arange(1, 10), rng.normal(0, 3, (40, 9))
    found = scores.fit("mood", Features(fit_rows))(Features(queries))
    np.testing.assert_allclose(found.numpy(), reference(fit_rows, queries), rtol=1e-9)


def test_the_mean_over_the_fit_rows_is_the_width():
    """With Σ divided by N, mean (f − μ)ᵀΣ⁻¹(f − μ) over the fit set is tr I = D, which no other divisor gives."""
    rows = np.random.default_rng(1).normal(1, 1, (64, 6))
    score = scores.fit("mood", Features(rows))
    assert float(score(Features(rows)).mean()) == pytest.approx(6, rel=1e-12)


def test_fewer_rows_than_dimensions_is_the_pseudo_inverse():
    """Rank N − 1: distances count only inside the span of the fit rows, where their mean is that rank."""
    rng = np.random.default_rng(2)
    fit_rows, queries = rng.normal(1, 1, (8, 20)), rng.normal(1, 1, (5, 20))
    score = scores.fit("mood", Features(fit_rows))
    assert float(score(Features(fit_rows)).mean()) == pytest.approx(7, rel=1e-9)
    unit = fit_rows / np.linalg.norm(fit_rows, axis=1, keepdims=True)
    centred = unit - unit.mean(0)
    _, sizes, directions = np.linalg.svd(centred, full_matrices=False)
    offsets = queries / np.linalg.norm(queries, axis=1, keepdims=True) - unit.mean(0)
    expected = 8 * np.square((offsets @ directions[:7].T) / sizes[:7]).sum(1)
    np.testing.assert_allclose(score(Features(queries)).numpy(), expected, rtol=1e-9)


def test_a_direction_without_spread_is_left_out():
    rng = np.random.default_rng(3)
    rows = rng.normal(1, 1, (50, 4))
    dead = np.concatenate([rows, np.zeros((50, 1))], axis=1)
    queries = rng.normal(1, 1, (5, 4))
    expected = scores.fit("mood", Features(rows))(Features(queries))
    found = scores.fit("mood", Features(dead))(Features(np.concatenate([queries, np.zeros((5, 1))], axis=1)))
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=0)


def test_length_does_not_count_and_zero_is_finite():
    rng = np.random.default_rng(4)
    score = scores.fit("mood", Features(rng.normal(1, 1, (50, 4))))
    queries = rng.normal(1, 1, (5, 4))
    torch.testing.assert_close(score(Features(1e3 * queries)), score(Features(queries)), rtol=1e-8, atol=0)
    assert score(Features(np.zeros((1, 4)))).isfinite().all()


@pytest.mark.parametrize("rows", [np.ones((1, 3)), np.tile([[1.0, 2.0, 4.0]], (9, 1))])
@pytest.mark.parametrize("shrinkage", ["none", "oas", "ledoit-wolf", 0.5])
def test_rows_that_do_not_differ_are_refused(rows, shrinkage):
    with pytest.raises(InputError, match="no direction has a spread"):
        scores.fit("mood", Features(rows), shrinkage=shrinkage)


@pytest.mark.parametrize(("relu", "usual"), [(False, True), (True, False)])
def test_zeros_are_the_most_usual_or_the_most_unusual_row_by_where_the_known_ones_lie(relu, usual):
    """As the guide says: around the origin, or to one side of it."""
    rows = np.random.default_rng(0).normal(0, 1, (500, 16))
    rows = np.maximum(rows, 0) if relu else rows
    zero = np.zeros((1, 16))
    score = scores.fit("mood", Features(rows))
    found, known = score(Features(zero)), score(Features(rows))
    np.testing.assert_allclose(found.numpy(), reference(rows, zero), rtol=1e-9)
    assert found < known.min() if usual else found > known.max()
