"""Shrinkage against scikit-learn, the pseudo-inverse against numpy, and the nearest class against float64."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.covariance import OAS, LedoitWolf

from mood import scores
from mood.core.errors import InputError
from mood.core.features import Features
from mood.scores._gaussian import PANEL, Moments, nearest, whitened, whitener

PEERS = {"ledoit-wolf": LedoitWolf, "oas": OAS}


def made(rows: int, width: int = 12, classes: int = 4):
    rng = np.random.default_rng(0)
    labels = rng.integers(0, classes, rows)
    fit_rows = rng.normal(0, 4, (classes, width))[labels] + rng.normal(size=(rows, width)) @ rng.normal(
        size=(width, width)
    )
    return fit_rows, labels, rng.normal(0, 5, (30, width))


def distances(offsets: np.ndarray, covariance: np.ndarray) -> np.ndarray:
    return np.einsum("nd,de,ne->n", offsets, np.linalg.inv(covariance), offsets)


@pytest.mark.parametrize("rows", [10, 40, 1000])
@pytest.mark.parametrize("shrinkage", ["ledoit-wolf", "oas"])
@pytest.mark.parametrize("shards", [1, 3])
def test_shrinkage_is_that_of_scikit_learn(rows, shrinkage, shards):
    fit_rows, labels, queries = made(rows)
    means = np.stack([fit_rows[labels == label].mean(0) for label in np.unique(labels)])
    residuals = fit_rows - means[np.unique(labels, return_inverse=True)[1]]
    within = PEERS[shrinkage](assume_centered=True).fit(residuals).covariance_
    total = PEERS[shrinkage](assume_centered=True).fit(fit_rows - fit_rows.mean(0)).covariance_
    nearest_class = np.min([distances(queries - mean, within) for mean in means], axis=0)

    whole = Features(fit_rows, labels=labels)
    cut = [whole[start : start + -(-rows // shards)] for start in range(0, rows, -(-rows // shards))]
    found = scores.fit("mahalanobis", cut, shrinkage=shrinkage)(Features(queries)).numpy()
    np.testing.assert_allclose(found, nearest_class, rtol=1e-9)
    found = scores.fit("relative_mahalanobis", cut, shrinkage=shrinkage)(Features(queries)).numpy()
    np.testing.assert_allclose(
        found, nearest_class - distances(queries - fit_rows.mean(0), total), rtol=1e-9, atol=1e-9
    )
    unit, sides = (x / (np.linalg.norm(x, axis=1, keepdims=True) + 1e-10) for x in (fit_rows, queries))
    one = PEERS[shrinkage](assume_centered=True).fit(unit - unit.mean(0)).covariance_
    found = scores.fit("mood", cut, shrinkage=shrinkage)(Features(queries)).numpy()
    np.testing.assert_allclose(found, distances(sides - unit.mean(0), one), rtol=1e-9)


@pytest.mark.parametrize("amount", [0, 0.25, 1])
def test_shrinkage_by_a_number(amount):
    fit_rows, _, queries = made(100)
    found = scores.fit("mahalanobis", Features(fit_rows, labels=np.zeros(100, int)), shrinkage=amount)(
        Features(queries)
    )
    covariance = np.cov(fit_rows, rowvar=False, ddof=0)
    shrunk = (1 - amount) * covariance + amount * np.trace(covariance) / 12 * np.eye(12)
    np.testing.assert_allclose(found.numpy(), distances(queries - fit_rows.mean(0), shrunk), rtol=1e-9)


@pytest.mark.parametrize("shrinkage", ["ledoit", -0.1, 1.5, float("nan"), True, None])
def test_another_shrinkage_is_refused(shrinkage):
    with pytest.raises(InputError, match=r"shrinkage is .*; (auto, none, ledoit-wolf, oas or a number|str or float)"):
        scores.fit("mood", Features(made(20)[0]), shrinkage=shrinkage)


@pytest.mark.parametrize("smallest", [1e-2, 1e-9, 1e-13, 1e-15, 1e-17, 0.0])
def test_whitener_squares_to_the_pseudo_inverse(smallest):
    """Either way to it cuts where the docstring says: eigenvalues up to D · eps · λ_max are zero."""
    width = 6
    turn = np.linalg.qr(np.random.default_rng(0).normal(size=(width, width)))[0]
    values = np.array([1, 0.7, 0.5, 0.3, 0.2, smallest])
    covariance = (turn * values) @ turn.T
    found = whitener(torch.from_numpy((covariance + covariance.T) / 2), width)
    kept = values > width * np.finfo(float).eps
    assert found.shape == (width, kept.sum())
    if smallest in (1e-2, 0.0):
        inverse = (turn[:, kept] / values[kept]) @ turn[:, kept].T
        np.testing.assert_allclose((found @ found.T).numpy(), inverse, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("width", [1, PANEL - 1, PANEL, PANEL + 1, 3 * PANEL, 3 * PANEL + 5])
@pytest.mark.parametrize("form", ["triangular", "full", "narrow", "one number below the diagonal"])
def test_zeros_below_the_diagonal_are_left_out_and_nothing_else(width, form):
    generator = torch.Generator().manual_seed(width)
    rows = torch.randn(4, width, generator=generator, dtype=torch.float64)
    matrix = torch.randn(width, width, generator=generator, dtype=torch.float64)
    if form in ("triangular", "one number below the diagonal"):
        matrix = matrix.triu()
        matrix[-1, 0] = matrix[-1, 0] if form == "triangular" else 7.0
    if form == "narrow":
        matrix = matrix[:, : (width + 1) // 2].contiguous()
    torch.testing.assert_close(whitened(rows, matrix), rows @ matrix, rtol=1e-12, atol=1e-12)


@given(st.integers(0, 2**32 - 1), st.floats(0, 12))
def test_the_nearest_class_is_the_one_of_float64(seed, closeness):
    """Also where classes are so close that float32 cannot tell them apart, or so far that it overflows."""
    generator = torch.Generator().manual_seed(seed)
    means = 100 + torch.randn(30, 9, generator=generator, dtype=torch.float64) * 10**-closeness
    rows = 100 + torch.randn(20, 9, generator=generator, dtype=torch.float64) * 10**-closeness
    found = nearest(rows, means)
    apart = (rows[:, None] - means).square().sum(2)
    chosen = apart.gather(1, found[:, None])[:, 0]
    # ‖m‖²/2 − w·m is of the size 1e5, so float64 itself decides to about 1e-10.
    torch.testing.assert_close(chosen, apart.amin(1), rtol=0, atol=1e-9)


def test_the_nearest_class_where_float32_overflows():
    means = torch.tensor([[1e200, 0.0], [0.0, 1e100], [1e30, 1e30]], dtype=torch.float64)
    assert nearest(torch.tensor([[0.0, 2e100]], dtype=torch.float64), means).tolist() in ([1], [2])
    assert nearest(torch.tensor([[1e30, 1.1e30]], dtype=torch.float64), means).tolist() == [2]


def test_moments_merge_in_any_grouping():
    rng = np.random.default_rng(5)
    parts = [
        Moments(
            torch.tensor(labels),
            torch.tensor(rng.integers(1, 9, len(labels)), dtype=torch.float64),
            torch.from_numpy(rng.normal(size=(len(labels), 3))),
            torch.eye(3, dtype=torch.float64),
        )
        for labels in ([0, 4], [4], [1, 9, 12], [0, 12])
    ]
    left = parts[0].merge(parts[1]).merge(parts[2]).merge(parts[3])
    right = parts[0].merge(parts[1].merge(parts[2].merge(parts[3])))
    assert left.labels.tolist() == right.labels.tolist() == [0, 1, 4, 9, 12]
    for field in ("counts", "means", "scatter"):
        torch.testing.assert_close(getattr(left, field), getattr(right, field), rtol=1e-12, atol=1e-12)


NEEDS_LABELS = (
    "mahalanobis",
    "mahalanobis++",
    "relative_mahalanobis",
    "relative_mahalanobis++",
    "mahalanobis_per_class",
)


@pytest.mark.parametrize("name", [*NEEDS_LABELS, "ssd"])
@pytest.mark.parametrize(("count", "shrinks"), [(79, True), (80, False)])
def test_auto_shrinks_where_rows_are_few(name, count, shrinks):
    """Under ten rows for each of 8 dimensions; a covariance for each class counts its own rows."""
    rows = np.random.default_rng(0).normal(size=(count, 8)) * np.linspace(0.5, 2, 8)
    features, queries = Features(rows, labels=np.zeros(count, int)), Features(rows[:5] + 1)
    if name.startswith("relative"):
        # With one class both distances are one.
        features = Features(rows, labels=np.arange(count) % 2)
    found = scores.fit(name, features)(queries)
    assert torch.equal(found, scores.fit(name, features, shrinkage="auto")(queries))
    assert torch.equal(found, scores.fit(name, features, shrinkage="oas" if shrinks else "none")(queries))
    assert not torch.equal(found, scores.fit(name, features, shrinkage="none" if shrinks else "oas")(queries))


def test_mood_stays_the_papers_unless_asked():
    features = Features(np.random.default_rng(0).normal(size=(30, 8)))
    found = scores.fit("mood", features)(features)
    assert torch.equal(found, scores.fit("mood", features, shrinkage="none")(features))
    assert torch.equal(
        scores.fit("mood", features, shrinkage="auto")(features),
        scores.fit("mood", features, shrinkage="oas")(features),
    )


def test_the_gap_of_few_rows_is_what_the_comment_says():
    """Rows of the fit lie at D on average, Gaussian new ones at D (N + 1) / (N − D − 2), near D / (1 − D/N)."""
    rng, width, count = np.random.default_rng(1), 40, 51
    new = []
    for _ in range(200):
        rows = Features(rng.normal(size=(count, width)), labels=np.zeros(count, int))
        score = scores.fit("mahalanobis", rows, shrinkage="none")
        assert float(score(rows).mean()) == pytest.approx(width)
        new.append(float(score(Features(rng.normal(size=(200, width)))).mean()))
    assert np.mean(new) / width == pytest.approx(52 / 9, rel=0.1)
