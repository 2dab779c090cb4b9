"""What is chosen on known images: the likelihood against scipy's, the spread of norms against a drawn Gaussian."""

import numpy as np
import pytest
import scipy.stats
import torch

from mood import scores
from mood.core.errors import InputError
from mood.core.features import Features
from mood.scores import norm_dispersion, select
from mood.scores._sampling import held_out


def gaussian(n=400, width=6, classes=3, seed=0):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, n)
    mixing = rng.normal(size=(width, width)) + 2 * np.eye(width)
    rows = rng.normal(size=(n, width)) @ mixing + rng.normal(0, 6, (classes, width))[labels]
    return Features(rows, labels=labels)


@pytest.mark.parametrize("name", ["mahalanobis", "mood"])
def test_the_likelihood_is_that_of_scipy(name):
    features = gaussian()
    rows = features.embedding.numpy()
    labels = features.labels.numpy() if name == "mahalanobis" else np.zeros(len(rows), int)
    if name == "mood":
        rows = rows / (np.linalg.norm(rows, axis=1, keepdims=True) + 1e-10)
    cut = held_out(features.ids).numpy()
    means = np.stack([rows[~cut & (labels == c)].mean(0) for c in range(labels.max() + 1)])
    centred = rows[~cut] - means[labels[~cut]]
    covariance = centred.T @ centred / len(centred)
    shrunk = 0.9 * covariance + 0.1 * np.trace(covariance) / 6 * np.eye(6)
    found = select(name if name == "mood" else "mahalanobis", features)
    if found.name == "mahalanobis++":
        pytest.fail("a Gaussian's norms spread as a Gaussian's do")
    for option, sigma in (("none", covariance), ("0.1", shrunk)):
        expected = np.mean(
            [
                scipy.stats.multivariate_normal(means[c], sigma, allow_singular=True).logpdf(row)
                for row, c in zip(rows[cut], labels[cut], strict=True)
            ]
        )
        assert found.log_likelihood[option] == pytest.approx(expected, rel=1e-9), option
    best = max(found.log_likelihood, key=found.log_likelihood.get)
    assert str(found.options["shrinkage"]) == best
    assert best in found.why


def test_the_spread_of_norms_is_one_for_a_gaussian_and_more_for_heavy_tails():
    plain = gaussian(20_000)
    ratio, error = norm_dispersion(plain)
    assert abs(ratio - 1) < 4 * error
    rng = np.random.default_rng(0)
    scale = rng.gamma(4, 0.25, (20_000, 1))
    tails = Features(plain.embedding * torch.from_numpy(scale), labels=plain.labels)
    assert norm_dispersion(tails)[0] > 1.5
    chosen = select("relative_mahalanobis", tails)
    assert chosen.name == "relative_mahalanobis++"
    assert "normalised" in chosen.why
    assert select("mahalanobis", plain).name == "mahalanobis"
    assert select("mahalanobis++", plain).norm_dispersion is None


def test_few_images_for_many_dimensions_want_shrinkage():
    found = select("mahalanobis", gaussian(40, 60, 1))
    assert found.log_likelihood["none"] == -np.inf
    assert found.options["shrinkage"] != "none"
    scores.fit(found.name, gaussian(40, 60, 1), **found.options)


def test_shards_are_as_good_as_the_whole():
    features = gaussian()
    whole = select("mahalanobis", features)
    parts = select("mahalanobis", [features[:150], features[150:]])
    assert parts.options == whole.options
    assert parts.log_likelihood == pytest.approx(whole.log_likelihood)


def test_no_unknown_image_has_a_say():
    """Nothing but known features can be given: there is no argument for others."""
    import inspect

    assert list(inspect.signature(select).parameters) == ["name", "features"]


def test_what_is_wrong_is_told():
    features = gaussian(20)
    with pytest.raises(InputError, match="nothing is chosen"):
        select("knn", features)
    with pytest.raises(InputError, match="several times"):
        select("mood", iter([features]))
    with pytest.raises(InputError, match="labels"):
        select("mahalanobis", Features(features.embedding))
    with pytest.raises(InputError, match="no rows"):
        select("mood", [])
    with pytest.raises(InputError, match="hold some out"):
        select("mood", features[~held_out(features.ids)])
