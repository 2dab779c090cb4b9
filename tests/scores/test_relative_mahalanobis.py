"""Relative Mahalanobis against its definition, with the sign and the divisors that others got wrong."""

import numpy as np
import pytest

from mood import scores
from mood.core.errors import InputError
from mood.core.features import Features


def reference(fit_rows: np.ndarray, labels: np.ndarray, queries: np.ndarray, normalise: bool) -> np.ndarray:
    """Ren et al. 2021, equations 3 and 4: min_c MD_c − MD_0, and both covariances are divided by N."""
    if normalise:
        fit_rows, queries = (
            rows / (np.linalg.norm(rows, axis=1, keepdims=True) + 1e-10) for rows in (fit_rows, queries)
        )
    means = np.stack([fit_rows[labels == label].mean(axis=0) for label in np.unique(labels)])
    residuals = fit_rows - means[np.unique(labels, return_inverse=True)[1]]
    within = np.linalg.inv(residuals.T @ residuals / len(fit_rows))
    total = np.linalg.inv(np.cov(fit_rows, rowvar=False, ddof=0))
    found = []
    for query in queries:
        nearest = min((query - mean) @ within @ (query - mean) for mean in means)
        background = (query - fit_rows.mean(axis=0)) @ total @ (query - fit_rows.mean(axis=0))
        found.append(nearest - background)
    return np.array(found)


@pytest.mark.parametrize(("name", "normalise"), [("relative_mahalanobis", False), ("relative_mahalanobis++", True)])
def test_formula(name, normalise):
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 5, 400)
    fit_rows = rng.normal(0, 3, (5, 7))[labels] + rng.normal(1, 1, (400, 7)) @ rng.normal(size=(7, 7))
    queries = rng.normal(0, 5, (60, 7))
    found = scores.fit(name, Features(fit_rows, labels=labels))(Features(queries))
    np.testing.assert_allclose(found.numpy(), reference(fit_rows, labels, queries, normalise), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", ["relative_mahalanobis", "relative_mahalanobis++"])
@pytest.mark.parametrize("shrinkage", ["none", "ledoit-wolf", 0.3])
def test_one_class_is_refused(name, shrinkage):
    """With one class both Gaussians are the same one, and what is left of the difference is rounding."""
    fit_rows = np.random.default_rng(1).normal(size=(50, 4))
    with pytest.raises(InputError, match="all fit rows have label 3, .* zero for every image; take mahalanobis or"):
        scores.fit(name, Features(fit_rows, labels=np.full(50, 3)), shrinkage=shrinkage)
