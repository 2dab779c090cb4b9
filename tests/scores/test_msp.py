"""Maximum softmax probability against scipy."""

import numpy as np
from scipy.special import softmax

from mood import scores
from mood.core.features import Features


def test_formula():
    logits = np.random.default_rng(0).normal(0, 5, (100, 7))
    features = Features(np.zeros((100, 1)), logits=logits)
    np.testing.assert_allclose(
        scores.fit("msp", features)(features).numpy(), -softmax(logits, axis=1).max(1), rtol=1e-12
    )


def test_range():
    features = Features(np.zeros((3, 1)), logits=[[1e4, -1e4], [0.0, 0.0], [-1e4, -1e4]])
    assert scores.fit("msp", features)(features).tolist() == [-1, -0.5, -0.5]
