"""Entropy against scipy."""

import numpy as np
from scipy.special import softmax
from scipy.stats import entropy

from mood import scores
from mood.core.features import Features


def test_formula():
    logits = np.random.default_rng(0).normal(0, 3, (100, 7))
    features = Features(np.zeros((100, 1)), logits=logits)
    expected = entropy(softmax(logits, axis=1), axis=1)
    np.testing.assert_allclose(scores.fit("entropy", features)(features).numpy(), expected, rtol=1e-10)


def test_a_probability_that_underflows_is_no_nan():
    features = Features(np.zeros((2, 1)), logits=[[1e4, 0.0, -1e4], [0.0, 0.0, 0.0]])
    np.testing.assert_allclose(scores.fit("entropy", features)(features).numpy(), [0, np.log(3)], atol=1e-15)
