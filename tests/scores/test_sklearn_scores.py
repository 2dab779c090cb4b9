"""What scikit-learn fits and mood keeps and scores, against scikit-learn's own scores, with their sign turned."""

import sys

import numpy as np
import pytest
import torch
from sklearn.ensemble import IsolationForest
from sklearn.mixture import GaussianMixture
from sklearn.neighbors import LocalOutlierFactor
from sklearn.svm import OneClassSVM

from mood import scores
from mood.core.errors import InputError, MissingExtraError
from mood.core.features import Features
from mood.scores._sampling import hashes
from mood.scores.isolation_forest import expected_path

PEERS = {
    "gmm": ({"components": 3}, lambda: GaussianMixture(3, random_state=0)),
    "ocsvm": ({"nu": 0.2}, lambda: OneClassSVM(nu=0.2)),
    "isolation_forest": (
        {"trees": 50, "rows": 64},
        lambda: IsolationForest(n_estimators=50, max_samples=64, random_state=0),
    ),
    "lof": ({"k": 7}, lambda: LocalOutlierFactor(7, novelty=True)),
}


def unit(rows):
    return rows / (np.linalg.norm(rows, axis=1, keepdims=True) + 1e-10)


@pytest.mark.parametrize("name", PEERS)
@pytest.mark.parametrize("bank", [150, 1000])
def test_it_is_the_negative_of_scikit_learns_score(world, name, bank):
    options, peer = PEERS[name]
    order = hashes(world.fit.ids, 0).argsort(stable=True).numpy()[:bank]
    expected = -peer().fit(unit(world.rows)[order]).score_samples(unit(world.queries))
    score = scores.fit(name, world.fit, bank=bank, **options)
    np.testing.assert_allclose(score(world.test).numpy(), expected, rtol=1e-9)


@pytest.mark.parametrize("name", PEERS)
def test_a_score_that_was_saved_needs_no_scikit_learn(world, name, monkeypatch):
    options, _ = PEERS[name]
    score = scores.fit(name, world.fit, **options)
    monkeypatch.setitem(
        sys.modules, f"sklearn.{ {'gmm': 'mixture', 'ocsvm': 'svm', 'lof': 'neighbors'}.get(name, 'ensemble') }", None
    )
    assert torch.equal(scores.restore(name, *scores.state(score))(world.test), score(world.test))
    with pytest.raises(MissingExtraError, match="fitted by scikit-learn, which is not installed here"):
        scores.fit(name, world.fit, **options)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("gmm", {"components": 0}, "components is 0"),
        ("gmm", {"components": 301}, "there are 300 rows to fit on, and at least 301 are needed"),
        ("ocsvm", {"nu": 0.0}, "nu is 0.0"),
        ("ocsvm", {"nu": 1.1}, "nu is 1.1"),
        ("isolation_forest", {"trees": 0}, "trees is 0"),
        ("isolation_forest", {"rows": 1}, "rows is 1; a whole number from 2"),
        ("lof", {"k": 0}, "k is 0"),
        ("lof", {"k": 10, "bank": 10}, "k is 10; a whole number from 1 to 9"),
        ("lof", {"k": 300}, "there are 300 rows to fit on, and at least 301 are needed"),
        ("lof", {"seed": -1}, "seed is -1"),
    ],
)
def test_what_is_out_of_range_is_refused(world, name, options, message):
    with pytest.raises(InputError, match=message):
        scores.fit(name, world.fit, **options)


def test_equal_rows_leave_a_finite_score():
    rows = np.array([[1.0, 0.0], [0.0, 1.0]] * 30)
    for name in ("ocsvm", "isolation_forest", "lof"):
        assert scores.fit(name, Features(rows))(Features([[1.0, 1.0], [1.0, 0.0]])).isfinite().all()


def test_expected_path_of_few_rows():
    assert [expected_path(rows) for rows in (0, 1, 2)] == [0, 0, 1]
    assert expected_path(256) == pytest.approx(10.2447, abs=1e-3)
