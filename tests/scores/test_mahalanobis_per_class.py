"""A covariance for each class against numpy, one class at a time."""

import numpy as np
import pytest
from sklearn.covariance import OAS

from mood import scores
from mood.core.errors import InputError
from mood.core.features import Features


def reference(rows, labels, queries, covariance):
    far = []
    for label in np.unique(labels):
        own = rows[labels == label]
        offset = queries - own.mean(0)
        far.append(np.einsum("nd,de,ne->n", offset, np.linalg.pinv(covariance(own), hermitian=True), offset))
    return np.min(far, axis=0)


@pytest.mark.parametrize("rows", [300, 30])
def test_formula(worlds, rows):
    world = worlds(rows)
    expected = reference(world.rows, world.labels, world.queries, lambda own: np.cov(own.T, bias=True))
    found = scores.fit("mahalanobis_per_class", world.fit, shrinkage="none")(world.test)
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-8)


@pytest.mark.parametrize("rows", [300, 30])
def test_shrinkage_is_that_of_scikit_learn(worlds, rows):
    world = worlds(rows)
    expected = reference(world.rows, world.labels, world.queries, lambda own: OAS().fit(own).covariance_)
    found = scores.fit("mahalanobis_per_class", world.fit, shrinkage="oas")(world.test)
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-8)


def test_rows_may_wait_or_not(world, monkeypatch):
    expected = scores.fit("mahalanobis_per_class", world.fit)(world.test).numpy()
    monkeypatch.setattr("mood.scores._per_class.PENDING", 20)
    cut = [world.fit[start : start + 7] for start in range(0, 300, 7)]
    np.testing.assert_allclose(scores.fit("mahalanobis_per_class", cut)(world.test).numpy(), expected, rtol=1e-9)


def test_folded_moments_merge_with_folded_ones(world):
    """Another engine may merge halves that were merged before."""
    (step,) = scores.rounds("mahalanobis_per_class")
    halves = [step.collect(world.fit[part], None).folded() for part in (slice(0, 90), slice(90, 300))]
    found = step.finish(step.merge(*halves), None)(world.test).numpy()
    expected = scores.fit("mahalanobis_per_class", world.fit)(world.test).numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-9)


def test_a_class_without_spread_is_named():
    rows = np.random.default_rng(0).normal(size=(9, 3))
    with pytest.raises(InputError, match="class 7 has 1 rows without any spread"):
        scores.fit("mahalanobis_per_class", Features(rows, labels=[0] * 8 + [7]))
    rows[5:] = 0.1
    with pytest.raises(InputError, match="class 1 has 4 rows without any spread"):
        scores.fit("mahalanobis_per_class", Features(rows, labels=[0] * 5 + [1] * 4))


@pytest.mark.parametrize("shrinkage", ["ledoit-wolf", 1.5])
def test_another_shrinkage_is_refused(world, shrinkage):
    with pytest.raises(InputError, match="shrinkage is .*none, oas or a number"):
        scores.fit("mahalanobis_per_class", world.fit, shrinkage=shrinkage)
