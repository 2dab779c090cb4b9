"""OpenMax against scipy's Weibull fit and a loop over images and ranks."""

import numpy as np
import pytest
import torch
from scipy.stats import weibull_min

from mood import scores
from mood.core.errors import InputError
from mood.core.features import Features
from mood.scores.openmax import weibull


def far(z, mean):
    cosine = z @ mean / (np.linalg.norm(z) * np.linalg.norm(mean))
    return np.linalg.norm(z - mean) / 200 + 1 - cosine


def reference(logits, labels, queries, tail, alpha):
    right = logits.argmax(1) == labels
    means, models = {}, {}
    for label in np.unique(labels[right]):
        own = logits[right & (labels == label)]
        means[label] = own.mean(0)
        largest = np.sort([far(z, means[label]) for z in own])[-tail:]
        shape, _, scale = weibull_min.fit(largest - largest.min() + 10_000, floc=0)
        models[label] = (largest.min(), weibull_min(shape, scale=scale))
    scores = []
    for z in queries:
        revised, unknown = z.copy(), 0.0
        for rank, label in enumerate(np.argsort(-z)[:alpha], start=1):
            if label not in models:
                continue
            smallest, model = models[label]
            doubt = (alpha + 1 - rank) / alpha * model.cdf(far(z, means[label]) - smallest + 10_000)
            unknown += z[label] * doubt
            revised[label] = z[label] * (1 - doubt)
        powers = np.exp(np.append(revised, unknown) - max(revised.max(), unknown))
        scores.append(powers[-1] / powers.sum())
    return np.array(scores)


@pytest.mark.parametrize(("tail", "alpha"), [(20, 4), (20, 2), (10, 1), (200, 3)])
def test_formula(worlds, tail, alpha):
    world = worlds(400)
    expected = reference(world.logits, world.labels, world.query_logits, tail, alpha)
    assert np.ptp(expected) > 0.5
    found = scores.fit("openmax", world.fit, tail=tail, alpha=alpha)(world.test)
    # As near as scipy's optimiser comes to the maximum.
    np.testing.assert_allclose(found.numpy(), expected, rtol=2e-3, atol=1e-4)


def test_the_weibull_fit_is_at_the_maximum_of_the_likelihood():
    """The slope of the likelihood, by differences in extended precision, is zero on both sides."""
    tail = np.sort(np.random.default_rng(0).gamma(2, 0.3, 20))
    tail -= tail.min()
    relative = torch.from_numpy(np.log1p(tail / 10_000))[None]
    log_scale, shape = (float(value) for value in weibull(relative, torch.ones(1, 20, dtype=torch.bool)))

    def likelihood(log_scale, shape):
        u = np.log1p(tail.astype(np.longdouble) / 10_000)
        return (np.log(np.longdouble(shape)) + shape * (u - log_scale) - np.exp(shape * (u - log_scale))).sum()

    best = likelihood(log_scale, shape)
    for factor in (0.999, 1.001):
        assert likelihood(log_scale, shape * factor) < best
    for step in (-1e-3 / shape, 1e-3 / shape):
        assert likelihood(log_scale + step, shape) < best


def test_more_classes_asked_for_than_there_are():
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(80, 3))
    features = Features(logits, logits=logits, labels=logits.argmax(1))
    few, many = (scores.fit("openmax", features, alpha=alpha)(features) for alpha in (3, 50))
    assert torch.equal(few, many)


def test_a_class_without_right_images_keeps_its_logit(world):
    labels = np.where(world.labels == 2, 3, world.labels)
    expected = reference(world.logits, labels, world.query_logits, 20, 4)
    features = Features(world.rows, logits=world.logits, labels=labels)
    found = scores.fit("openmax", features, alpha=4)(world.test)
    np.testing.assert_allclose(found.numpy(), expected, rtol=2e-3, atol=1e-4)


def test_a_class_of_one_image_is_a_step(world):
    """Its tail has no spread: everything farther than that image is beyond it."""
    keep = np.concatenate([np.flatnonzero((world.labels == 0) & (world.logits.argmax(1) == 0))[:1]])
    score = scores.fit("openmax", world.fit[keep])
    assert score(world.fit[keep]).isfinite().all()
    assert score(world.test).isfinite().all()


def test_huge_logits_do_not_overflow():
    logits = np.array([[1e4, 0.0], [0.0, 1e4], [9e3, 0.0], [0.0, 9e3]])
    features = Features(logits, logits=logits, labels=[0, 1, 0, 1])
    assert scores.fit("openmax", features)(features).isfinite().all()


@pytest.mark.parametrize(
    ("options", "message"), [({"tail": 1}, "tail is 1; a whole number from 2"), ({"alpha": 0}, "alpha is 0")]
)
def test_options_out_of_range_are_refused(world, options, message):
    with pytest.raises(InputError, match=message):
        scores.fit("openmax", world.fit, **options)


def test_no_right_image_is_refused():
    with pytest.raises(InputError, match="no class has a mean to be far from"):
        scores.fit("openmax", Features(np.ones((3, 2)), logits=[[1.0, 0.0]] * 3, labels=[1, 1, 1]))
