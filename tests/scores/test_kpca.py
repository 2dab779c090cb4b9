"""Kernel PCA against scikit-learn's components, and the random features against the kernel that they stand for."""

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA
from sklearn.metrics.pairwise import rbf_kernel

from mood import scores
from mood.core.errors import InputError
from mood.core.features import Features
from mood.scores.kpca import random_features


def unit(rows):
    return rows / (np.linalg.norm(rows, axis=1, keepdims=True) + 1e-10)


def left(fit_rows, queries, variance):
    """What PCA cannot rebuild."""
    pca = PCA(variance, svd_solver="full").fit(fit_rows)
    return np.linalg.norm(queries - pca.inverse_transform(pca.transform(queries)), axis=1)


@pytest.mark.parametrize("variance", [0.85, 0.5, 0.97])
def test_formula_of_cop(world, variance):
    expected = left(unit(world.rows), unit(world.queries), variance)
    found = scores.fit("kpca_cop", world.fit, variance=variance)(world.test)
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-9)


@pytest.mark.parametrize("gamma", [2.0, 3.0])
def test_formula_of_corp(world, gamma):
    score = scores.fit("kpca_corp", world.fit, width=64, gamma=gamma)
    frequencies, phases = score.frequencies.numpy(), score.phases.numpy()

    def mapped(rows):
        return np.sqrt(2 / 64) * np.cos(unit(rows) @ frequencies + phases)

    expected = left(mapped(world.rows), mapped(world.queries), 0.8)
    np.testing.assert_allclose(score(world.test).numpy(), expected, rtol=1e-9)


def test_random_features_have_the_gaussian_kernel(world):
    score = scores.fit("kpca_corp", world.fit, width=4096, gamma=2.0)
    rows = torch.from_numpy(world.queries)
    mapped = random_features(rows, score.frequencies, score.phases)
    kernel = rbf_kernel(unit(world.queries), gamma=2.0)
    assert np.abs((mapped @ mapped.T).numpy() - kernel).max() < 0.1


def test_the_draw_is_that_of_the_seed(world):
    one, same, other = (scores.fit("kpca_corp", world.fit, width=32, seed=seed) for seed in (0, 0, 1))
    assert torch.equal(one.frequencies, same.frequencies)
    assert not torch.equal(one.frequencies, other.frequencies)


def test_all_of_the_variance_in_one_direction_leaves_the_others_out():
    rows = np.array([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]] * 5)
    score = scores.fit("kpca_cop", Features(rows))
    assert score.principal.shape == (3, 1)
    assert score(Features(rows)).max() < 1e-12
    assert score(Features([[0.0, 0.0, 2.0]])) > 1


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("kpca_cop", {"variance": 1.0}, "variance is 1.0"),
        ("kpca_corp", {"variance": 0.0}, "variance is 0.0"),
        ("kpca_corp", {"gamma": 0.0}, "gamma is 0.0; a number above 0"),
        ("kpca_corp", {"width": 1}, "width is 1; a whole number from 2"),
        ("kpca_corp", {"seed": -1}, "seed is -1"),
    ],
)
def test_options_out_of_range_are_refused(world, name, options, message):
    with pytest.raises(InputError, match=message):
        scores.fit(name, world.fit, **options)


@pytest.mark.parametrize("name", ["kpca_cop", "kpca_corp"])
def test_rows_that_are_all_the_same_are_refused(name):
    with pytest.raises(InputError, match="no direction has a spread"):
        scores.fit(name, Features(np.full((5, 3), 0.1)))
