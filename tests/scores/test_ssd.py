"""SSD against numpy; with one cluster it is the score of MOOD."""

import numpy as np
import pytest
import torch

from mood import scores
from mood.core.errors import InputError
from mood.core.features import Features
from mood.scores.ssd import k_means


def standardised(fit_rows, queries):
    units = [rows / (np.linalg.norm(rows, axis=1, keepdims=True) + 1e-10) for rows in (fit_rows, queries)]
    mean, deviation = units[0].mean(0), units[0].std(0) + 1e-10
    return [(rows - mean) / deviation for rows in units]


def distance(own, queries):
    offset = queries - own.mean(0)
    return np.einsum("nd,de,ne->n", offset, np.linalg.inv(np.cov(own.T, bias=True)), offset)


def test_formula(world):
    fit_rows, queries = standardised(world.rows, world.queries)
    found = scores.fit("ssd", world.fit)(world.test)
    np.testing.assert_allclose(found.numpy(), distance(fit_rows, queries), rtol=1e-8)
    np.testing.assert_allclose(found.numpy(), scores.fit("mood", world.fit)(world.test).numpy(), rtol=1e-7)


@pytest.mark.parametrize("clusters", [1, 2])
def test_rows_are_standardised_by_a_deviation_divided_by_n(world, clusters):
    """The distances do not tell: another divisor is one factor for all dimensions, which the covariances take back."""
    units = world.rows / (np.linalg.norm(world.rows, axis=1, keepdims=True) + 1e-10)
    score = scores.fit("ssd", world.fit, clusters=clusters)
    np.testing.assert_allclose(score.mean.numpy(), units.mean(0), rtol=1e-9)
    np.testing.assert_allclose(score.deviation.numpy(), units.std(0) + 1e-10, rtol=1e-9)


def test_each_cluster_has_its_own_covariance():
    """Clusters so far apart that nobody could cut them otherwise."""
    rng = np.random.default_rng(0)
    place = rng.integers(0, 3, 400)
    rows = 10 * np.eye(4)[place] + rng.normal(size=(400, 4)) * np.array([0.1, 0.4, 0.2])[place, None] + 3
    queries = rng.normal(2, 4, (30, 4))
    world = Features(rows)
    fit_rows, standard = standardised(rows, queries)
    expected = np.min([distance(fit_rows[place == cluster], standard) for cluster in range(3)], axis=0)
    found = scores.fit("ssd", world, clusters=3)(Features(queries))
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-8)


def test_k_means_ends_where_no_row_moves():
    rows = torch.from_numpy(np.random.default_rng(0).normal(size=(500, 4)))
    centres = k_means(rows, 6, 0)
    place = torch.cdist(rows, centres).argmin(1)
    torch.testing.assert_close(centres, torch.stack([rows[place == cluster].mean(0) for cluster in range(6)]))
    assert torch.equal(centres, k_means(rows, 6, 0))


def test_clusters_do_not_depend_on_order_or_shards(world):
    features = Features(world.rows, ids=[f"{row}.png" for row in range(300)])
    expected = scores.fit("ssd", features, clusters=3, bank=150)(world.test)
    found = scores.fit("ssd", [features[200:], features[:200]], clusters=3, bank=150)(world.test)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"clusters": 0}, "clusters is 0"),
        ({"clusters": 5, "bank": 4}, "bank is 4; a whole number from 5"),
        ({"shrinkage": "ledoit-wolf"}, "none, oas or a number"),
    ],
)
def test_options_out_of_range_are_refused(world, options, message):
    with pytest.raises(InputError, match=message):
        scores.fit("ssd", world.fit, **options)


def test_fewer_different_rows_than_clusters_are_refused():
    rows = np.array([[1.0, 0.0], [0.0, 1.0]] * 5)
    with pytest.raises(InputError, match="clusters is 3 and there are only 2 different rows"):
        scores.fit("ssd", Features(rows), clusters=3)


def test_a_cluster_without_spread_is_refused():
    rows = np.array([[1.0, 0.0], [0.0, 1.0]] * 5)
    with pytest.raises(InputError, match="cluster 0 has 5 rows without any spread"):
        scores.fit("ssd", Features(rows), clusters=2)
