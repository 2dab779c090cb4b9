"""Mahalanobis and Mahalanobis++ against a plain loop over images and classes."""

import numpy as np
import pytest
import torch

from mood import scores
from mood.core.errors import InputError
from mood.core.features import Features


def reference(fit_rows: np.ndarray, labels: np.ndarray, queries: np.ndarray, normalise: bool) -> np.ndarray:
    """Lee et al. 2018, equations 1 and 2: class means, one covariance divided by N, the smallest squared distance."""
    if normalise:
        fit_rows, queries = (
            rows / (np.linalg.norm(rows, axis=1, keepdims=True) + 1e-10) for rows in (fit_rows, queries)
        )
    means = {label: fit_rows[labels == label].mean(axis=0) for label in np.unique(labels)}
    covariance = sum(
        np.outer(row - means[label], row - means[label]) for row, label in zip(fit_rows, labels, strict=True)
    ) / len(fit_rows)
    precision = np.linalg.inv(covariance)
    return np.array([min((query - mean) @ precision @ (query - mean) for mean in means.values()) for query in queries])


def made(seed: int = 0, rows: int = 300, width: int = 8, classes: int = 6):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, rows)
    spread = rng.normal(size=(width, width))
    fit_rows = rng.normal(0, 2, (classes, width))[labels] + rng.normal(size=(rows, width)) @ spread + 3
    return fit_rows, labels, rng.normal(0, 5, (50, width))


@pytest.mark.parametrize(("name", "normalise"), [("mahalanobis", False), ("mahalanobis++", True)])
def test_formula(name, normalise):
    fit_rows, labels, queries = made()
    found = scores.fit(name, Features(fit_rows, labels=labels))(Features(queries))
    np.testing.assert_allclose(found.numpy(), reference(fit_rows, labels, queries, normalise), rtol=1e-9)


def test_a_class_of_one_image_counts_by_its_mean():
    fit_rows, labels, queries = made()
    labels[0] = 17
    found = scores.fit("mahalanobis", Features(fit_rows, labels=labels))(Features(queries))
    np.testing.assert_allclose(found.numpy(), reference(fit_rows, labels, queries, False), rtol=1e-9)
    assert float(scores.fit("mahalanobis", Features(fit_rows, labels=labels))(Features(fit_rows[:1]))) == pytest.approx(
        0, abs=1e-18
    )


def test_only_classes_of_one_image_are_refused():
    fit_rows, _, _ = made(rows=5)
    with pytest.raises(InputError, match="no direction has a spread"):
        scores.fit("mahalanobis", Features(fit_rows, labels=np.arange(5)))


def test_a_large_mean_costs_no_digits():
    """The distance does not move with the origin: a million of offset leaves the digits that float64 still holds."""
    fit_rows, labels, queries = made()
    # Multiples of 2⁻²⁰ stay exact when 2²⁰ is added, so both fits see the same cloud.
    fit_rows, queries = (np.round(rows * 2**20) / 2**20 for rows in (fit_rows, queries))
    shards = [Features(fit_rows[start : start + 50], labels=labels[start : start + 50]) for start in range(0, 300, 50)]
    moved = [Features(shard.embedding + 2.0**20, labels=shard.labels) for shard in shards]
    expected = scores.fit("mahalanobis", shards)(Features(queries))
    torch.testing.assert_close(
        scores.fit("mahalanobis", moved)(Features(queries + 2.0**20)), expected, rtol=1e-8, atol=0
    )


def test_badly_scaled_dimensions():
    """Scaling a dimension does not change the distance, over twelve orders of magnitude of the variance."""
    fit_rows, labels, queries = made()
    scale = np.logspace(-3, 3, 8)
    found = scores.fit("mahalanobis", Features(fit_rows * scale, labels=labels))(Features(queries * scale))
    np.testing.assert_allclose(found.numpy(), reference(fit_rows, labels, queries, False), rtol=1e-6)
